"""The tables of `transformer_peers.py`, and where they stand in its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic

NAMES = {"xl": "Transformer-XL", "compressive": "Compressive Transformer"}
OURS = {"real": "ours, memories on", "off": "ours, memories emptied", "static": "ours, trained without memories"}


def tables(record: dict[str, Any]) -> str:
    """What `transformer_peers.py` found, as tables of Markdown."""
    lines = []
    if "text" in record:
        found = record["text"]
        lines += [
            f"WikiText-2 test, {found['articles']} articles, {found['tokens']:,} tokens, {found['words']:,} words; "
            f"size {record['size']}, {record['steps']} steps of {found['step_tokens']:,} tokens, seed {record['seed']}.",
            "",
            "| model | parameters | learning rate | valid, nats per token | test, word perplexity | against memory on | "
            "again / first, after 8,000 tokens | state elements |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in found["test"]:
            model = found["models"]["brain" if name in ("real", "off") else name]
            label = OURS.get(name) or f"{NAMES[name]}, memory {' + '.join(str(m) for m in model['memory'] if m)}"
            nats = "" if name == "off" else f"{model['nats']:.3f}"
            score, again = found["test"][name], found["repeat"][name]
            change = "" if name == "real" else f"{100 * score['change']:+.1f} % {percent(score['change_interval'])}"
            lines.append(
                f"| {label} | {model['parameters']:,} | {model['rate']:g} | {nats} | "
                f"{score['word_perplexity']:.1f} {bracketed(score['interval'], 1)} | {change} | "
                f"{again['ratio']:.3f} {bracketed(again['interval'], 3)} | {model['elements']:,} |"
            )
        lines.append("")
        for kind, row in found["static"].items():
            change = f"{100 * row['change']:+.1f} % {percent(row['change_interval'])}"
            lines += [f"Ours trained without memories against the {NAMES[kind]}: {change}.", ""]
        holds = found["repeat"].get("xl that holds the sample")
        if holds:
            ratio = f"{holds['ratio']:.3f} {bracketed(holds['interval'], 3)}"
            lines += [f"Again / first of the same Transformer-XL with a memory of the whole sample: {ratio}.", ""]
    if "mqar" in record:
        found = record["mqar"]
        points = [point.removeprefix("task:mqar:") for point in found["points"]]
        lines += [
            f"MQAR, accuracy, {found['rows']} rows a point; {record['mqar_steps']} steps of 16 examples, "
            f"seed {record['seed']}.",
            "",
            "| model | parameters | learning rate | state elements | " + " | ".join(points) + " | mean |",
            "|---|---|---|---|" + "---|" * (len(points) + 1),
        ]
        for name, accuracy in found["accuracy"].items():
            model = found["models"][name]
            cells = " | ".join(f"{a:.3f}" for a in [*accuracy, float(np.mean(accuracy))])
            label = NAMES.get(name, "ours")
            lines.append(f"| {label} | {model['parameters']:,} | {model['rate']:g} | {model['elements']:,} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def bracketed(interval: tuple[float, float], digits: int) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def percent(interval: tuple[float, float]) -> str:
    return f"[{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"


def write(path: Path, tables: str) -> None:
    """Put the tables between the page's two marks."""
    before, begin, rest = path.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    _, end, after = rest.partition("<!-- end of tables -->")
    atomic.write_text(path, before + begin + "\n" + tables + end + after)
