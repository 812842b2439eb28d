"""The suite ``recall``: how often the right answer comes first, task by task, with and without the right memory.

Arms, same weights and same tokens: REAL; OFF (the memories are emptied at every commit); SHUFFLED (every span reads the
memories of another row, and writes its own). What OFF still answers, the window attention holds.
An episode is a row; intervals resample rows, never tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuro import plots, tasks
from neuro.brain import Brain
from neuro.errors import UsageError, nearest
from neuro.evaluate import arms, statistics
from neuro.evaluate.statistics import Interval
from neuro.state import BrainState, leaves, select_rows
from neuro.tasks import Rows, Task

ARMS = ("real", "off", "shuffled")
MEMORIES = ("regions.hippocampus.", "regions.cortex.procedural.")
# The published test points of the Based mixture (arXiv:2402.18668), 1,000 rows each.
MQAR_BASED = tuple(
    f"task:mqar:T={length},pairs={pairs}"
    for length, pairs in ((64, 4), (64, 8), (64, 16), (128, 32), (256, 64), (512, 128), (1024, 256))
)
# The last pair lies this many tokens beyond a window of 256, and the newest of 2 and of 32 bindings.
BEYOND_WINDOW = (
    *(f"task:delayed:pairs=8,delay={256 + beyond}" for beyond in (256, 1024, 4096)),
    "task:rebinding:pairs=16,bindings=2",
    "task:overwriting:pairs=4,bindings=32",
)
POINTS = {"mqar": MQAR_BASED, "delayed": BEYOND_WINDOW}  # by the preset whose models they are for
ROWS_AT_ONCE = 128  # bounds what a span's scan holds


class Answers(NamedTuple):
    """How each row's answers were predicted."""

    right: Tensor  # [B, C] bool: the answer had the highest logit
    nats: Tensor  # [B, C] surprise at it


@dataclasses.dataclass(frozen=True)
class Result:
    """One task at one size under one arm."""

    task: str
    length: int  # tokens of a row
    arm: str
    rows: int
    answers: int  # of all rows
    accuracy: float
    interval: Interval  # 95 %, bootstrap over rows
    nats: float  # mean surprise at an answer
    chance: float  # of a guess among the values there are

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"interval": list(self.interval)}


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    task: str = "mqar",
    rows: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """The suite: every arm on every test point -> its JSON record. It reads no text, and is quick enough to begin anew.

    Args:
        task: a name in `POINTS`, or a source of tasks as in ``data.train``.
        rows, seed: as `evaluate`.

    Raises:
        UsageError: neither, or a vocabulary that is too small for it.
    """
    if task not in POINTS and not tasks.named(task):
        raise UsageError(f"--task: got '{task}', expected 'task:...' or a known name.", nearest(task, tuple(POINTS)))
    sources = POINTS.get(task, (task,))
    for source in sources:
        try:
            tasks.parse(source, brain.config.vocab_size)
        except UsageError as error:
            if task in POINTS:
                raise UsageError(
                    error.what, f"This is for models that learned it: neuro train {task} --out runs/{task}"
                ) from error
            raise
    results: list[Result] = []
    for source in sources:
        say(f"{source} ...")
        results += evaluate(brain, [source], rows, seed)
    means = {arm: float(np.mean([result.accuracy for result in results if result.arm == arm])) for arm in ARMS}
    return {
        "task": task,
        "rows": rows,
        "seed": seed,
        "elements": state_elements(brain),
        "mean_accuracy": means,
        "results": [result.to_dict() for result in results],
    }


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    results = [Result(**row | {"interval": tuple(row["interval"])}) for row in record["results"]]
    elements, means = record["elements"], record["mean_accuracy"]
    return [
        f"{record['rows']} rows a task; {elements['state']} state elements, {elements['memory']} of them in memories; "
        "brackets: 95 %",
        *lines(results),
        "mean accuracy: " + ", ".join(f"{arms.LABELS.get(arm, arm)} {mean:.4f}" for arm, mean in means.items()),
    ]


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Accuracy by task and arm; None without matplotlib."""
    shown = ("real", "shuffled", "off")
    found = {arm: [r for r in record["results"] if r["arm"] == arm] for arm in shown}
    bars = {arms.LABELS[arm]: [(r["accuracy"], tuple(r["interval"])) for r in rows] for arm, rows in found.items()}
    return plots.grouped([r["task"] for r in found["real"]], bars, "share of answers first", out)


def evaluate(
    brain: Brain, sources: Sequence[str] = MQAR_BASED, rows: int = 1000, seed: int = 0, chosen: Sequence[str] = ARMS
) -> list[Result]:
    """Accuracy of every task and arm, on rows that training never draws; the brain stays as it is.

    Args:
        sources: tasks as `neuro.tasks.parse` reads them; a mixture is measured part by part.
        rows: episodes of each.
        seed: of the rows and of the bootstrap.
        chosen: arms, of `ARMS`.

    Raises:
        UsageError: an unknown task, parameter or arm, or fewer than two rows.
    """
    for arm in chosen:
        if arm not in ARMS:
            raise UsageError(f"recall: got arm '{arm}', expected a known one.", nearest(arm, ARMS))
    if rows < 2:
        raise UsageError(f"recall: got {rows} rows, expected at least 2.", "Give more rows: an interval needs them.")
    results = []
    for source in sources:
        for task in tasks.parse(source, brain.config.vocab_size):
            for arm in chosen:
                results.append(_result(brain, task, rows, seed, arm))
    return results


def answer(brain: Brain, rows: Rows, arm: str = "real") -> Answers:
    """Read fresh rows to their end, span by span, and look at what was predicted just before each answer; pure."""
    tokens = torch.from_numpy(rows.tokens).to(brain.embedding.device)
    ahead = torch.from_numpy(np.append(rows.scored[:, 1:], np.zeros((len(rows.tokens), 1), bool), 1))
    following = torch.roll(tokens, -1, 1)
    state, span = brain.init_state(len(tokens)), brain.config.plasticity_span
    right, nats = torch.zeros(tokens.shape, dtype=torch.bool), torch.zeros(tokens.shape)
    training = brain.training
    brain.eval()
    try:
        with torch.no_grad():
            for start in range(0, tokens.shape[1], span):
                part = slice(start, start + span)
                out = brain.scan(tokens[:, part], _shown(state, arm))
                here = ahead[:, part]
                logits, said = out.logits[here].float(), following[:, part][here]
                right[:, part][here] = (logits.argmax(-1) == said).cpu()
                nats[:, part][here] = torch.nn.functional.cross_entropy(logits, said, reduction="none").cpu()
                state = brain.commit(arms.with_memories_of(out.state, state))[0]
                if arm == "off":
                    state = arms.without_memory(state)
    finally:
        brain.train(training)
    count = len(tokens)
    return Answers(right[ahead].reshape(count, -1), nats[ahead].reshape(count, -1))


def state_elements(brain: Brain) -> dict[str, int]:
    """Numbers carried per stream: in the memories, and in the whole state but for the logits (a prediction, no memory)."""
    sizes = {name: leaf.numel() for name, leaf in leaves(brain.init_state(1)) if name != "logits"}
    memory = sum(size for name, size in sizes.items() if name.startswith(MEMORIES))
    return {"memory": memory, "state": sum(sizes.values())}


def lines(results: Sequence[Result]) -> list[str]:
    """Lines to print: one a task and size, the arms side by side."""
    names = [arm for arm in ARMS if any(result.arm == arm for result in results)]
    found = {(result.task, result.arm): result for result in results}
    wide = max(len(result.task) for result in results)
    told = [f"{'task':<{wide}}  {'tokens':>7}  {'chance':>7}  " + "  ".join(f"{arm:<22}" for arm in names)]
    for task in dict.fromkeys(result.task for result in results):
        row = [found[task, arm] for arm in names]
        cells = [f"{r.accuracy:.4f} ({r.interval[0]:.4f}..{r.interval[1]:.4f})" for r in row]
        told.append(
            f"{task:<{wide}}  {row[0].length:>7}  {row[0].chance:>7.5f}  " + "  ".join(f"{c:<22}" for c in cells)
        )
    return [line.rstrip() for line in told]


def _result(brain: Brain, task: Task, rows: int, seed: int, arm: str) -> Result:
    # The rows follow from the task and the seed alone: every arm sees the same.
    random = np.random.default_rng([seed, *tasks.spelled(task).encode()])
    found: list[Answers] = []
    # Every batch of two rows at least: another row's memory needs another row.
    for part in np.array_split(np.arange(rows), min(rows // 2, -(-rows // ROWS_AT_ONCE))):
        found.append(answer(brain, task.rows(random, len(part), brain.config.vocab_size), arm))
    right = torch.cat([answers.right for answers in found]).double().mean(1).numpy()
    nats = torch.cat([answers.nats for answers in found])
    return Result(
        tasks.spelled(task),
        task.length,
        arm,
        len(right),
        nats.numel(),
        float(right.mean()),
        interval(right, seed),
        float(nats.mean()),
        1.0 / len(task.values(brain.config.vocab_size)),
    )


def interval(rows: np.ndarray, seed: int) -> Interval:
    """95 % interval of the mean over ``rows`` [B], by bootstrap."""
    sums = statistics.resampled_sums([np.array([[row, 1.0]]) for row in rows], seed=seed)
    return statistics.interval(sums[0] / sums[1])


def _shown(state: BrainState, arm: str) -> BrainState:
    """What a span reads: its own memories, or under SHUFFLED those of the row before."""
    if arm != "shuffled":
        return state
    rows = state.started.shape[0]
    others = torch.roll(torch.arange(rows, device=state.started.device), 1)
    return arms.with_memories_of(state, select_rows(state, others))
