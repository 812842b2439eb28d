"""What each part of a brain is worth: trained again without it, at equal parameters, on the same data in the same order.

An arm is the whole brain or one without a part (`neuro/evaluate/ablation_parts.py`); every arm is trained with every seed for
the same steps, from the same tokenizer, with the streams of that seed, and measured with its memories on by the suites of
`neuro/evaluate/ablation_suites.py`. ``worth`` of a part is what the brain without it does worse, in the measure's unit:
positive where the part helps. Differences are paired by seed and unit; the bootstrap draws both, crossed, because every
seed is asked the same units. p as in `neuro/evaluate/ablation.py`, Holm's correction over the parts of a measure.

A folder keeps everything: ``config.toml``, ``tokenizer.json``, a training in ``ARM-SEED``, finished measures in ``parts``. A
run that was stopped goes on, and one over fewer parts or seeds takes what is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic, corpus, folder, tasks, training_text
from neuro import config as configs
from neuro.brain import Brain
from neuro.config import RunConfig
from neuro.errors import UsageError
from neuro.evaluate import ablation_parts, ablation_suites, probes
from neuro.evaluate.ablation import DRAWS, holm
from neuro.evaluate.ablation_parts import PARTS, WHOLE, Arm
from neuro.evaluate.ablation_suites import MEASURES, Settings
from neuro.evaluate.parts import Parts
from neuro.evaluate.statistics import interval
from neuro.tokenizer import Tokenizer
from neuro.train import loop
from neuro.workload import Workload, from_json

Say = Callable[[str], None]
Price = Callable[[Workload], dict[str, Any]]


def run(
    config: RunConfig,
    raw: str,
    out: Path,
    say: Say = lambda line: None,
    *,
    parts: str | None = None,
    suites: str | None = None,
    seeds: int = 3,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    backend: str = "auto",
    force: bool = False,
    price: Price | None = None,
) -> dict[str, Any]:
    """Train and measure every arm -> the record of the suite.

    Args:
        config: the whole brain, what it learns from and for how long.
        raw: the held-out text.
        out: where trainings and finished measures are kept.
        parts, suites: names with commas between; None is all there are.
        seeds: trainings of each arm, from ``config.train.seed`` on.
        settings: of the suites.
        force: measure although the text was read in training.
        price: energy per token of a counted run; None leaves energy out.

    Raises:
        UsageError: fewer than two seeds, no text to learn from, unknown or missing parts and suites, a folder of another run.
        CheckError: the text was read in training.
    """
    if seeds < 2:
        raise UsageError(
            f"--seeds: got {seeds}, expected at least 2.", "Give more: one training says nothing of the next."
        )
    names, chosen = ablation_parts.chosen(parts, config.brain), ablation_suites.named(suites)
    config, seen = _prepared(config, raw, out, force)
    arms = {name: ablation_parts.arm(name, config.brain) for name in (WHOLE, *names)}
    for name, arm in arms.items():
        width = arm.brain.cortex.feedforward_width
        say(f"{name}: {arm.parameters} parameters, feed-forwards of width {width}")
    units: dict[str, dict[str, list[np.ndarray]]] = {}
    loads: dict[str, list[Workload]] = {}
    nats: dict[str, list[float]] = {}
    # One arm after the other: what is finished of a run that is stopped is whole parts.
    for name, arm in arms.items():
        for seed in range(config.train.seed, config.train.seed + seeds):
            brain, valid = _trained(config, arm, name, seed, out, backend, say)
            nats.setdefault(name, []).append(valid)
            pieces = Parts(out, "ablation", brain, raw, dataclasses.asdict(settings), say)
            for suite in chosen:
                found = pieces.get(
                    f"{name}-{seed}-{suite}",
                    f"{name}, seed {seed}: {suite}",
                    lambda brain=brain, suite=suite: _plain(  # type: ignore[misc]
                        ablation_suites.measure(brain, suite, raw, settings)
                    ),
                )
                for measure, rows in found.items():
                    units.setdefault(measure, {}).setdefault(name, []).append(np.array(rows))
            if price is not None:
                counted = pieces.get(
                    f"{name}-{seed}-workload",
                    f"{name}, seed {seed}: counting",
                    lambda brain=brain, name=name: ablation_suites.workload(  # type: ignore[misc]
                        brain, raw, name, settings
                    ).to_json(),
                )
                loads.setdefault(name, []).append(from_json(counted))
    record: dict[str, Any] = {
        "seeds": seeds,
        "indicative": seeds < probes.CLAIM,
        "config": configs.to_dict(config),
        "settings": dataclasses.asdict(settings),
        "read_in_training": seen,
        "arms": {
            name: {
                "without": PARTS[name].words if name in PARTS else "",
                "against": PARTS[name].against if name in PARTS else None,
                "parameters": arm.parameters,
                "feedforward_width": arm.brain.cortex.feedforward_width,
                "valid_nats": nats[name],
            }
            for name, arm in arms.items()
        },
        "measures": {
            measure: compared(
                {name: np.stack(rows) for name, rows in found.items()}, MEASURES[measure].better, config.train.seed
            )
            for measure, found in units.items()
        },
    }
    if price is not None:
        record["energy"] = {name: _mean([price(load) for load in found]) for name, found in loads.items()}
    return record


def compared(units: dict[str, np.ndarray], better: int, seed: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """Each arm's value, and what each part is worth.

    Args:
        units: [S, N, 2] of each arm, `WHOLE` among them.
        better: 1 where more is better, -1 where less is.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        units, ``values`` (value, interval, by_seed of each arm), ``worth`` (worth, interval, p, p_holm, by_seed of each part).
    """
    seeds, count, _ = units[WHOLE].shape
    random = np.random.default_rng(seed)
    picked = random.integers(0, count, (draws, count))
    weights = np.stack([(np.bincount(row, minlength=count)) for row in picked])  # [draws, N] how often each unit
    of_seed = random.integers(0, seeds, (draws, seeds))
    shares = np.stack([(of_seed == number).sum(1) for number in range(seeds)], 1) / seeds  # [draws, S]

    def drawn(table: np.ndarray) -> np.ndarray:
        sums = np.einsum("dn,snc->dsc", weights, table)
        numerator, denominator = np.einsum("ds,dsc->cd", shares, sums)
        return numerator / denominator

    def value(table: np.ndarray) -> float:
        numerator, denominator = table.sum((0, 1))
        return float(numerator / denominator)

    draws_of = {name: drawn(table) for name, table in units.items()}
    values = {
        name: {
            "value": value(table),
            "interval": list(interval(draws_of[name])),
            "by_seed": (table[..., 0].sum(1) / table[..., 1].sum(1)).tolist(),
        }
        for name, table in units.items()
    }
    worth: dict[str, dict[str, Any]] = {}
    for name in units:
        if name == WHOLE:
            continue
        other = PARTS[name].against
        gained = better * (draws_of[other] - draws_of[name])
        wrong = min(float((gained <= 0).mean()), float((gained >= 0).mean()))
        by_seed = better * (np.array(values[other]["by_seed"]) - np.array(values[name]["by_seed"]))
        worth[name] = {
            "worth": better * (values[other]["value"] - values[name]["value"]),
            "interval": list(interval(gained)),
            "by_seed": by_seed.tolist(),
            "p": min(1.0, max(2 * wrong, 2 / draws)),
        }
    corrected = holm([row["p"] for row in worth.values()])
    for row, p in zip(worth.values(), corrected, strict=True):
        row["p_holm"] = p
    return {"units": count, "values": values, "worth": worth}


def _prepared(config: RunConfig, raw: str, out: Path, force: bool) -> tuple[RunConfig, dict[str, float | None] | None]:
    """The run with one tokenizer for all arms, and how much of the text it learns from.

    Raises:
        UsageError: it learns from nothing, or from a task.
        CheckError: the text was read in training.
    """
    data = config.data
    if not data.train or tasks.named(data.train):
        raise UsageError(
            f"ablation: got data.train '{data.train}', expected a text, a folder or 'hf:NAME'.",
            "Give --set data.train=PATH, or put it into the configuration.",
        )
    kept = out / "tokenizer.json"
    if not ((out / training_text.NAME).is_file() and kept.is_file()):
        documents = corpus.read_documents(data.train)
        if data.tokenizer in ("bpe", "words"):
            lines = (line + "\n" for document in documents for line in document.split("\n"))
            words = data.tokenizer == "words"
            Tokenizer.train(lines, config.brain.vocab_size, kind="words" if words else "bpe").save(kept)
        else:
            Tokenizer.load(Path(data.tokenizer)).save(kept)
        training_text.write(out, training_text.record(training_text.of_documents(documents)))
    seen = training_text.refuse_read(out, {"the text": raw}, force)
    vocabulary = Tokenizer.load(kept).vocab_size
    config = configs.apply_sets(config, [f"data.tokenizer={kept}", f"brain.vocab_size={vocabulary}"])
    path = out / "config.toml"
    if not path.is_file():
        atomic.write_text(path, configs.to_toml(config))
    elif configs.load(path) != config:
        raise UsageError(
            f"{path}: got an ablation of another configuration, expected this one's.",
            "Choose another --out, or remove this folder.",
        )
    return config, seen


def _trained(
    config: RunConfig, arm: Arm, name: str, seed: int, out: Path, backend: str, say: Say
) -> tuple[Brain, float]:
    """The arm's brain of a seed, and its validation nats; trained unless it lies there.

    Raises:
        UsageError: what lies there is of another brain or training.
    """
    where = out / f"{name}-{seed}"
    run = dataclasses.replace(config, brain=arm.brain, train=dataclasses.replace(config.train, seed=seed))
    if not (where / "model" / "config.json").is_file():
        say(f"{name}, seed {seed}: training {run.train.steps} steps ...")
        loop.train(run, where, backend)
    record = folder.read_record(where / "model")
    about = record["about"]
    if record["brain"] != configs.to_dict(arm.brain) or about.get("train") != configs.to_dict(run.train):
        raise UsageError(
            f"{where}: got a training of another configuration, expected this one's.",
            "Choose another --out, or remove this folder.",
        )
    return folder.load(where / "model", backend), float(about["valid_nats"])


def _plain(units: ablation_suites.Units) -> dict[str, Any]:
    return {name: rows.tolist() for name, rows in units.items()}


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
