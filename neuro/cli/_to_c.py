"""neuro export --to c: write a model as C99 for a microcontroller."""

from __future__ import annotations

import argparse
import json

from neuro.errors import UsageError


def run(args: argparse.Namespace) -> int:
    from export.c import package
    from export.c.board import TARGETS
    from neuro.cli import _model

    if args.quantize not in (None, "int8"):
        raise UsageError(f"--quantize: got '{args.quantize}', expected int8 with --to c.", "Leave it out.")
    if not args.target:
        raise UsageError(
            f"neuro export --to c: no target, expected one of {', '.join(TARGETS)}.", "Name one with --target."
        )
    manifest = package.export_c(_model.locate(args.model), args.out, args.target, args.set)
    if args.json:
        record = {"schema": "neuro.export.done/1", "model": args.model, "out": args.out}
        print(json.dumps(record | manifest))
        return 0
    flash, ram, parity, counted = (manifest[key] for key in ("flash", "ram", "parity", "instructions"))
    memory = "every memory on" if manifest["memory"] else "no episodic and no procedural memory"
    print(f"{args.out}: {manifest['parameters']:,} parameters in C99 for {manifest['target']}, {memory}")
    for name, found in (("flash", flash), ("RAM", ram)):
        print(f"{name}: {found['total']:,} of {found['limit']:,} bytes")
        for term, count in found["terms"].items():
            print(f"  {count:>9,}  {term}")
    print(f"{flash['bytes_per_parameter']:.2f} bytes of flash per parameter")
    print(f"program against reference: this computer {parity['host']}; {manifest['target']} {parity['board']}")
    print(
        f"reference against torch over {parity['tokens']} tokens: {parity['nats']:.4f} nats for "
        f"{parity['torch_nats']:.4f}, same likeliest token {100 * parity['top1_agreement']:.1f} %, divergence "
        f"{parity['divergence']:.5f}"
    )
    if counted:
        print(
            f"{counted['per_token_with_commits']:,} instructions a token with commits, {counted['per_mac']:.2f} per integer "
            f"product ({counted['counted_by']})"
        )
    print(f"energy: unpriced, {manifest['energy']['unpriced']}")
    if not args.quiet:
        print(f"try: make -C {args.out} check")
    return 0
