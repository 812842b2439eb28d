"""Omniglot one-shot: 20-way within an alphabet, the same encoder read by nearest neighbour and by DG, CA3 and CA1.

    NEURO_DATA=... python benchmarks/omniglot.py --encoders FOLDER

The encoder is a plain convolutional network of four layers, trained on one of the two small background sets alone (five
alphabets; each character turned and mirrored in eight ways is eight characters), by telling which of two drawings belong
together among 64 characters. Each example is stored in several views and each test asked with as many, as if it had been
replayed; nearest neighbour is shown with and without them. Whatever was chosen was chosen on alphabets of the other background
set; the 20 runs of the evaluation are read once, at the end. Encoders are kept in FOLDER and trained where there is none.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.memory.autoassociation import recall, store
from neuro.memory.dentate import DentateGyrus
from neuro.sensors import omniglot
from neuro.tensor_file import read, write

SIDE = 56  # pixels the encoder sees
CHANNELS = (32, 64, 96, 128)
SCHEMA = "omniglot-encoder-1"
TURNS = 8  # four quarter turns, mirrored or not: a character each
VIEWS = 24  # of each picture that are stored and asked with: as it is, and through random affine maps


class Encoder(nn.Sequential):
    """[S,1,56,56] -> [S,128]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 1
        for number, channels in enumerate(CHANNELS):
            kernel, stride = (3, 1) if number else (5, 2)
            layers += [nn.Conv2d(width, channels, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(channels)]
            layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            width = channels
        super().__init__(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last)).flatten(1)


def soft(images: np.ndarray) -> Tensor:
    """uint8 [S,105,105] -> float [S,1,105,105], blurred over 3 x 3 pixels."""
    return F.avg_pool2d(torch.from_numpy(images).float().unsqueeze(1), 3, 1, 1)


def views(
    pictures: Tensor, strength: float, generator: torch.Generator | None = None, turn: Tensor | None = None
) -> Tensor:
    """Each picture through a random affine map, at 56 x 56 pixels; strength 0 leaves it as it is.

    At strength 1: 15 degrees, 15 % of size on each axis, shear 0.2, a shift of a tenth of half the side.
    """
    count = len(pictures)

    def drawn(most: float) -> Tensor:
        return (2.0 * torch.rand(count, generator=generator) - 1.0) * most * strength

    angle, wide, high, shear = drawn(0.26), torch.exp(drawn(0.15)), torch.exp(drawn(0.15)), drawn(0.2)
    shift = torch.stack([drawn(0.1), drawn(0.1)], 1)
    mirror = torch.ones(count)
    if turn is not None:
        angle = angle + (turn % 4) * (math.pi / 2.0)
        mirror = 1.0 - 2.0 * (turn // 4)
    c, s = torch.cos(angle), torch.sin(angle)
    first = torch.stack([c * wide, s * wide], 1) * mirror.unsqueeze(1)
    second = torch.stack([(c * shear - s) * high, (s * shear + c) * high], 1)
    grid = F.affine_grid(torch.stack([first, second, shift], 2), [count, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def train(name: str, steps: int, seed: int) -> Encoder:
    """One encoder from one background set."""
    torch.manual_seed(seed)
    background = omniglot.background(name)
    pictures = soft(background.images)
    drawings = torch.from_numpy(background.characters.argsort(kind="stable")).view(background.characters.max() + 1, -1)
    encoder = Encoder()
    optimizer = torch.optim.AdamW(encoder.parameters(), 2e-3, weight_decay=1e-3)
    pairs = 64
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, step / 50) * (1.0 + math.cos(math.pi * step / steps)) / 2.0
        chosen = torch.randperm(len(drawings) * TURNS)[:pairs]
        two = torch.rand(pairs, drawings.shape[1]).argsort(1)[:, :2]
        which = drawings[chosen // TURNS].gather(1, two).flatten()
        x = views(pictures[which], 1.0, turn=(chosen % TURNS).repeat_interleave(2))
        z = F.normalize(encoder(x), dim=1).view(pairs, 2, -1)
        scores, right = 16.0 * z[:, 0] @ z[:, 1].T, torch.arange(pairs)
        loss = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"{name}, seed {seed}, step {step}: {loss.item():.3f} nats", flush=True)
    return encoder.eval()


def encoder_of(name: str, folder: Path, steps: int, seed: int) -> Encoder:
    """The encoder kept in a folder, or a new one."""
    path = folder / f"{name}_{steps}_{seed}.safetensors"
    if not path.is_file():
        started = time.process_time()
        encoder = train(name, steps, seed)
        write(path, encoder.state_dict(), {"schema": SCHEMA, "cpu_s": time.process_time() - started})
    encoder = Encoder()
    encoder.load_state_dict(read(path, SCHEMA)[0])
    return encoder.eval()


def tasks(background: omniglot.Background, alphabets: list[int], count: int, seed: int) -> list[np.ndarray]:
    """Like the runs: up to 20 characters of one alphabet by two drawers, drawings [20,2]."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        characters = np.unique(background.characters[background.alphabets == random.choice(alphabets)])
        chosen = random.choice(characters, min(20, len(characters)), replace=False)
        drawers = random.choice(20, 2, replace=False)
        found.append(np.stack([np.flatnonzero(background.characters == c)[drawers] for c in chosen]))
    return found


@torch.no_grad()
def embedded(encoder: Encoder, images: np.ndarray, seed: int) -> Tensor:
    """[S,V,128] of length 1: the picture as it is, then seen through random affine maps."""
    generator, pictures, rows = torch.Generator().manual_seed(seed), soft(images), []
    for part in pictures.split(200):
        seen = [views(part, 0.0)] + [views(part, 1.0, generator) for _ in range(VIEWS - 1)]
        rows.append(torch.stack([encoder(x) for x in seen], 1))
    return F.normalize(torch.cat(rows), dim=-1)


@dataclasses.dataclass(frozen=True)
class Circuit:
    """How DG, CA3 and CA1 are set."""

    cells: int
    active: int
    beta: float

    def recalled(self, examples: Tensor, tests: Tensor) -> tuple[Tensor, Tensor]:
        """Shares [S,C] of each class and novelty [S] for tests [S,V,128] after examples [C,V,128] were stored once."""
        dentate = DentateGyrus(examples.shape[-1], self.cells, self.active, examples.shape[-1])
        classes = torch.eye(len(examples)).repeat_interleave(examples.shape[1], 0)
        patterns = store(dentate(examples.flatten(0, 1)), classes)
        found = recall(dentate(tests), patterns, self.beta)
        return found.value.mean(1), found.novelty.mean(1)


CIRCUITS = [
    Circuit(cells, active, beta) for cells, active in ((2048, 60), (2048, 400), (4096, 1600)) for beta in (32.0, 128.0)
]
Reader = Callable[[Tensor, Tensor], Tensor]  # examples [C,V,128], tests [S,V,128] -> scores [S,C]


def nearest(examples: Tensor, tests: Tensor) -> Tensor:
    return tests[:, 0] @ examples[:, 0].T


def nearest_of_views(examples: Tensor, tests: Tensor) -> Tensor:
    """Nearest neighbour that is given as many views: the largest cosine over all pairs of them."""
    return torch.einsum("svd,cwd->scvw", tests, examples).amax((2, 3))


def votes_of_views(examples: Tensor, tests: Tensor) -> Tensor:
    """The same without a dentate gyrus: shares of the stored views (beta 128), the mean over those asked with."""
    shares = torch.softmax(128.0 * torch.einsum("svd,cwd->svcw", tests, examples).flatten(2), -1)
    return shares.unflatten(2, examples.shape[:2]).sum(3).mean(1)


def errors(pairs: list[tuple[Tensor, Tensor, Tensor]], reader: Reader) -> np.ndarray:
    """Share of wrong answers in each of (examples, tests, answers)."""
    return np.array([float((reader(x, y).argmax(1) != a).float().mean()) for x, y, a in pairs])


def validation(name: str, encoder: Encoder) -> list[tuple[Tensor, Tensor, Tensor]]:
    """60 tasks on the alphabets of the other background set that the encoder has not seen."""
    other = omniglot.background(omniglot.BACKGROUNDS[1 - omniglot.BACKGROUNDS.index(name)])
    seen = omniglot.background(name).names
    chosen = tasks(other, [i for i, alphabet in enumerate(other.names) if alphabet not in seen], 60, seed=1)
    used, where = np.unique(np.concatenate([task.ravel() for task in chosen]), return_inverse=True)
    codes = embedded(encoder, other.images[used], seed=2)
    ends = np.cumsum([task.size for task in chosen])
    numbered = [part.reshape(-1, 2) for part in np.split(where, ends[:-1])]
    return [(codes[task[:, 0]], codes[task[:, 1]], torch.arange(len(task))) for task in numbered]


def evaluation(encoder: Encoder) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The 20 runs."""
    return [
        (
            embedded(encoder, run.examples, seed=3),
            embedded(encoder, run.tests, seed=4),
            torch.from_numpy(run.answers),
        )
        for run in omniglot.runs()
    ]


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean difference of two arms over runs, and its bootstrap interval."""
    random = np.random.default_rng(seed)
    difference = first - second
    means = difference[random.integers(0, len(difference), (10_000, len(difference)))].mean(1)
    return float(difference.mean()), *(float(x) for x in np.quantile(means, [0.025, 0.975]))


def told_apart(pairs: list[tuple[Tensor, Tensor, Tensor]], circuit: Circuit) -> float:
    """Area under the curve of novelty: tests of characters that were stored against those of the next run's."""
    known, new = [], []
    for (examples, tests, _), (_, strangers, _) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
        known.append(circuit.recalled(examples, tests)[1])
        new.append(circuit.recalled(examples, strangers)[1])
    a, b = torch.cat(known), torch.cat(new)
    return float((b.unsqueeze(1) > a).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", type=Path, required=True, help="folder of trained encoders")
    parser.add_argument("--backgrounds", nargs="*", choices=omniglot.BACKGROUNDS, default=omniglot.BACKGROUNDS)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-choose", action="store_true", help="leave the 20 runs unread")
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoders = {name: encoder_of(name, args.encoders, args.steps, args.seed) for name in args.backgrounds}
    report: dict[str, Any] = {"machine": _machine.describe(), "seed": args.seed, "steps": args.steps}
    tried = {name: validation(name, encoder) for name, encoder in encoders.items()}
    readers: dict[str, Reader] = {
        "nearest": nearest,
        "nearest of views": nearest_of_views,
        "votes of views": votes_of_views,
    }
    report["validation"] = {
        arm: [float(errors(pairs, reader).mean()) for pairs in tried.values()] for arm, reader in readers.items()
    }
    for circuit in CIRCUITS:
        report["validation"][str(circuit)] = [
            float(errors(pairs, lambda x, y, c=circuit: c.recalled(x, y)[0]).mean()) for pairs in tried.values()
        ]
    print("\nvalidation: error on alphabets of the other background set")
    for arm, values in report["validation"].items():
        print("  " + "  ".join(f"{100 * x:5.1f}" for x in [*values, statistics.mean(values)]) + f"  {arm}")
    best = min(CIRCUITS, key=lambda circuit: statistics.mean(report["validation"][str(circuit)]))
    report["chosen"] = str(best)
    print(f"\nchosen: {best}")
    if not args.only_choose:
        readers["DG, CA3, CA1"] = lambda x, y: best.recalled(x, y)[0]
        report["runs"] = {}
        for name, encoder in encoders.items():
            pairs = evaluation(encoder)
            found = {arm: errors(pairs, reader) for arm, reader in readers.items()}
            report["runs"][name] = {arm: values.tolist() for arm, values in found.items()}
            print(f"\n20 runs, encoder of {name}: error in %, sd over runs; less nearest neighbour [95 %]")
            for arm, values in found.items():
                d, low, high = (100 * x for x in paired(values, found["nearest"]))
                print(
                    f"  {100 * values.mean():5.2f}  {100 * values.std():4.1f}  {d:+5.2f} [{low:+.2f}, {high:+.2f}]  {arm}"
                )
            report["runs"][name]["novelty, area under the curve"] = told_apart(pairs, best)
            print(f"  novelty tells strange characters at {report['runs'][name]['novelty, area under the curve']:.3f}")
        for arm in readers:
            both = [statistics.mean(report["runs"][name][arm]) for name in encoders]
            print(f"mean of both backgrounds: {100 * statistics.mean(both):5.2f} %  {arm}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
