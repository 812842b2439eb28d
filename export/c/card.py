"""The card of an exported C folder: what it is, what it costs, and what was measured."""

from __future__ import annotations

from typing import Any


def text(manifest: dict[str, Any]) -> str:
    """README.md of a manifest."""
    parity, ram, flash, counted = (manifest[key] for key in ("parity", "ram", "flash", "instructions"))
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in ram["terms"].items())
    weights = "\n".join(f"| {name} | {count:,} |" for name, count in flash["terms"].items())
    if manifest["memory"]:
        what = "with every memory on: the window, the procedural fast weights and the episodic slots"
    else:
        what = "WITHOUT its episodic and procedural memory: it does not learn while it runs"
    if manifest["brain"]["endocrine"]["enabled"] and manifest["brain"]["endocrine"]["temperature_octaves"]:
        what += ". Hormones do not warm what you draw from the logits, as they do in torch"
    flips = 100 * parity["spike_mismatch"]
    beside = (
        f"Beside torch over {parity['tokens']} tokens and {parity['commits']} commits: {parity['nats']:.4f} nats per token "
        f"for {parity['torch_nats']:.4f}, the same likeliest token for {100 * parity['top1_agreement']:.1f} %, a "
        f"divergence of {parity['divergence']:.5f} nats, spike counts apart by {flips:.3f} % of all neuron updates."
    )
    cost = "Instructions were not counted: no compiler or no QEMU for this core was here."
    if counted:
        cost = (
            f"{counted['per_token']:,} instructions a token and {counted['per_commit']:,} a commit, {counted['per_mac']:.2f} "
            f"per integer product, commits included ({counted['counted_by']}); {counted['stack_bytes']} bytes of stack."
        )
    return f"""# A neuro brain in C99 for {manifest["target"]}

{manifest["parameters"]:,} parameters, {what}. int8 weights, no heap, no library.

    neuro_reset(&state);
    neuro_step(&state, token);                          /* state.logits says what comes next */
    if (neuro_due(&state)) neuro_commit(&state);

    make check                             # on this computer, bit for bit against golden/
    make BOARD={manifest["target"]} check  # in QEMU ({manifest["machine"]}): gcc-arm-none-eabi, qemu-system-arm

Take `neuro.h neuro.c neuro_math.h neuro_model.h neuro_model.c` into your firmware and keep `-ffp-contract=off
-fno-math-errno`. `neuro.c` keeps its activations in one static place: one step at a time. The program here against the
reference: this computer {parity["host"]}, board {parity["board"]}.

{beside}

{cost} Joules: {manifest["energy"]["unpriced"]}.

| flash | bytes |
|---|---|
{weights}
| all (limit {flash["limit"]:,}) | {flash["total"]:,}, {flash["bytes_per_parameter"]:.2f} per parameter |

| RAM | bytes |
|---|---|
{rows}
| all (limit {ram["limit"]:,}) | {ram["total"]:,} |
"""
