"""neuro export: write a model as ONNX graphs with a small runner, or as C99 for a microcontroller."""

from __future__ import annotations

import argparse
import json

from neuro.errors import UsageError, nearest

TARGETS = ("onnx", "c")

COMMON = ("set", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help="what to write: " + ", ".join(TARGETS))
    parser.add_argument("--target", metavar="CORE", help="with --to c: cortex-m4, cortex-m7 or cortex-m55")
    parser.add_argument("--quantize", metavar="RECIPE", help="int8: weights of 8 bits (default: float32)")


def run(args: argparse.Namespace) -> int:
    if args.to not in TARGETS:
        raise UsageError(f"--to: got '{args.to}', expected one of {', '.join(TARGETS)}.", nearest(args.to, TARGETS))
    if not args.out:
        raise UsageError("neuro export: no folder to write to.", "Give one with --out DIR.")
    if args.to == "c":
        from neuro.cli import _to_c

        return _to_c.run(args)
    from export import package
    from neuro.cli import _model

    sets = [item.removeprefix("brain.") for item in args.set]
    manifest = package.export_onnx(_model.locate(args.model), args.out, args.quantize, sets)
    parity, step, quantization = manifest["parity"], manifest["graphs"]["step"], manifest["quantization"]
    if args.json:
        record = {"schema": "neuro.export.done/1", "model": args.model, "out": args.out, "quantization": quantization}
        record |= {"step_bytes": step["bytes"], "float_step_bytes": manifest["float_step_bytes"]}
        print(json.dumps(record | {"parity": parity, "files": manifest["files"]}))
        return 0
    print(
        f"{args.out}: step.onnx ({step['bytes'] / 1e6:.2f} MB), commit.onnx, run.py, and torch/ to check them against"
    )
    if quantization:
        print(
            f"int8: {100 * quantization['share_of_weight_bytes']:.1f} % of the weight bytes; "
            f"step.onnx has {step['bytes'] / manifest['float_step_bytes']:.2f} of its float32 size"
        )
    print(
        f"parity over {parity['tokens']} tokens with carried state: logits within {parity['logits_max_abs']:.1e}, "
        f"same likeliest token {100 * parity['top1_agreement']:.1f} %, divergence {parity['divergence']:.5f} nats per token"
    )
    if not args.quiet:
        print(f'try: python {args.out}/run.py "Once upon a time"')
    return 0
