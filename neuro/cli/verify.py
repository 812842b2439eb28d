"""neuro verify: does an exported folder still say what its torch model says?"""

from __future__ import annotations

import argparse
import json

COMMON: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="a folder that 'neuro export' wrote")


def run(args: argparse.Namespace) -> int:
    from export import check
    from export.c import package as c_package

    if c_package.carries(args.folder):
        found = c_package.verify(args.folder)
        if args.json:
            print(json.dumps({"schema": "neuro.verify/1", "folder": args.folder, "ok": True} | found))
        else:
            print(f"{args.folder}: fine. {found['files']} files are as exported; its program here: {found['equal']}.")
        return 0
    report = check.verify(args.folder)
    if args.json:
        print(json.dumps({"schema": "neuro.verify/1", "folder": args.folder, "ok": True} | report.to_dict()))
        return 0
    parity = report.parity
    print(
        f"{args.folder}: fine. {report.files} files are as exported; over {parity.tokens} tokens and {parity.commits} "
        f"commits the {report.quantization or 'float32'} logits differ from torch by at most {parity.logits_max_abs:.1e}, "
        f"the likeliest token agrees for {100 * parity.top1_agreement:.1f} %, the divergence is "
        f"{parity.divergence:.5f} nats per token."
    )
    return 0
