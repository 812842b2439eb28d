"""neuro export --to onnx: a folder of ONNX graphs with a small runner."""

from __future__ import annotations

import argparse
import json


def run(args: argparse.Namespace) -> int:
    from export import package
    from neuro.cli import _model

    sets = [item.removeprefix("brain.") for item in args.set]
    profile = args.profile or "cpu"
    manifest = package.export_onnx(_model.locate(args.model), args.out, args.quantize, sets, profile, args.calibration)
    parity, step, quantization = manifest["parity"], manifest["graphs"]["step"], manifest["quantization"]
    if args.json:
        record = {"schema": "neuro.export.done/1", "model": args.model, "out": args.out, "quantization": quantization}
        record |= {"step_bytes": step["bytes"], "float_step_bytes": manifest["float_step_bytes"]}
        print(json.dumps(record | {"parity": parity, "files": manifest["files"]}))
        return 0
    print(
        f"{args.out}: {step['file']} ({step['bytes'] / 1e6:.2f} MB), {manifest['graphs']['commit']['file']}, run.py, "
        "and torch/ to check them against"
    )
    if quantization:
        print(
            f"{quantization['recipe']}: {100 * quantization['share_of_weight_bytes']:.1f} % of the weight bytes; "
            f"the step has {step['bytes'] / manifest['float_step_bytes']:.2f} of its float32 size"
        )
    print(
        f"parity over {parity['tokens']} tokens with carried state: logits within {parity['logits_max_abs']:.1e}, "
        f"same likeliest token {100 * parity['top1_agreement']:.1f} %, divergence {parity['divergence']:.5f} nats per token"
    )
    if not args.quiet:
        print(f'try: python {args.out}/run.py "Once upon a time"')
    return 0
