"""The mean of two models of one shape: what fine-tuning learned, with less of what it forgot.

    python benchmarks/average_weights.py FIRST SECOND --share 0.6 --out FOLDER [--set KEY=VALUE ...]

Every weight is (1 - share) of FIRST's and share of SECOND's; what FIRST lacks is SECOND's own. The configuration and the
tokenizer are SECOND's, with the overrides. Source: Wortsman et al. 2022, arXiv:2109.01903. This is how the shipped model was
finished; share and overrides were chosen on validation text (LOG.md).
"""

from __future__ import annotations

import argparse
import json

from neuro import folder, training_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--share", type=float, required=True, help="of the second model, 0 to 1")
    parser.add_argument("--out", required=True, help="folder to write the model into")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override of the brain's settings"
    )
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error(f"--share: got {options.share}, expected 0 to 1")
    brain = folder.load(options.second, "cpu", sets=options.set)
    first = folder.read_weights(folder.locate(options.first))
    own = brain.state_dict()
    shared = [name for name, tensor in first.items() if name in own and own[name].shape == tensor.shape]
    for name in shared:
        own[name].lerp_(first[name].to(own[name].dtype), 1.0 - options.share)
    about = folder.read_record(folder.locate(options.second))["about"]
    before = training_text.read(folder.locate(options.first))
    if before is not None:
        brain.seen = before if brain.seen is None else training_text.joined(before, brain.seen)
    about |= {"averaged": {"share_of_second": options.share, "tensors": len(shared)}}
    folder.save(brain, options.out, about)
    print(
        json.dumps(
            {"tensors_averaged": len(shared), "tensors_of_second_alone": len(own) - len(shared), "out": options.out}
        )
    )


if __name__ == "__main__":
    main()
