"""The affect head: trained on labelled texts, measured on their test splits.

    python benchmarks/affect.py train --out affect.safetensors --vad vad.safetensors
    python benchmarks/affect.py test affect.safetensors vad.safetensors

`train` learns from the training splits of GoEmotions, CLINC150, sentence polarity and subjectivity (CC BY), word vectors from
their texts and three books in the public domain; penalties, the weight of each half, thresholds and the out-of-scope cut are
chosen on the dev splits. The head of valence, arousal and dominance is fitted to EmoBank (CC BY-SA) on the frozen network and
goes into a file of its own. `test` reads the files as they are stored (int8 tables); each test split is read once. Intervals
(95 %): bootstrap over texts. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch

from neuro.affect import corpora, encoder, fit, measures, ngrams, reader, vectors, words
from neuro.affect.corpora import Labelled
from neuro.affect.reader import HEADS, Cuts, Reader, Vad, Wide

LOADERS = dict(zip(HEADS, (corpora.goemotions, corpora.clinc150, corpora.polarity, corpora.subjectivity), strict=True))
REPEATS = {"emotion": 1, "intent": 2, "positive": 1, "subjective": 1}
ROWS = {"emotion": 1 << 16, "intent": 1 << 15, "positive": 1 << 14, "subjective": 1 << 14, "vad": 1 << 15}
PENALTIES = {
    "emotion": (0.03, 0.1),
    "intent": (0.005, 0.02),
    "positive": (0.3, 1.0),
    "subjective": (0.3, 1.0),
    "vad": (0.5, 1.5),
}
KINDS = {"emotion": "labels", "intent": "classes", "positive": "labels", "subjective": "labels", "vad": "values"}
WEIGHTS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0)
PRIORS = (0.0, 2.0, 5.0, 10.0)
IN_SCOPE = 0.93


def say(**line: Any) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


def columns(data: Labelled) -> torch.Tensor:
    """Labels as [S, C]."""
    labels = torch.from_numpy(data.labels)
    return labels if labels.dim() == 2 else torch.nn.functional.one_hot(labels, len(data.names)).float()


def quality(head: str, logits: torch.Tensor, data: Labelled) -> float:
    """What is chosen by: macro-F1 at thresholds of the other half, in-scope accuracy, accuracy."""
    if head == "emotion":
        return split_half(data.labels, logits.numpy(), 0.0)
    if head == "intent":
        inside = data.labels < len(data.names) - 1
        return float((logits[:, :-1].argmax(1).numpy() == data.labels)[inside].mean())
    return float(((logits > 0.0).numpy() == data.labels).mean())


def split_half(labels: np.ndarray, scores: np.ndarray, prior: float) -> float:
    """Macro-F1 with each half's thresholds on the other, over ten splits."""
    found = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        halves = np.array_split(order, 2)
        said = np.empty(labels.shape, bool)
        for one, other in (halves, halves[::-1]):
            said[other] = scores[other] > measures.thresholds(labels[one], scores[one], prior)
        found.append(measures.f1(labels, said).mean())
    return float(np.mean(found))


def widened(head: str, train: Labelled, dev: Labelled, deep: torch.Tensor) -> Wide:
    """The n-gram half: penalty and weight chosen on dev."""
    rows = ROWS[head]
    found = ngrams.listed(train.texts, rows)
    inverse = ngrams.frequencies(found, rows)
    bags, best, chosen = ngrams.bags(found, inverse), -1.0, None
    for penalty in PENALTIES[head]:
        table, bias = ngrams.fit(bags, rows, columns(train), KINDS[head], penalty)
        wide = Wide(inverse, table, bias, 1.0)
        other = wide.logits(dev.texts)
        alone = quality(head, other, dev)
        for weight in WEIGHTS:
            both = reader.joined(head, deep, other, weight)
            value = quality(head, both, dev)
            if value > best:
                best, chosen = value, Wide(inverse, table, bias, weight)
        say(head=head, penalty=penalty, wide=alone, deep=quality(head, deep, dev), best=best, weight=chosen.weight)
    return chosen


def train(options: argparse.Namespace) -> dict[str, Any]:
    started = time.process_time()
    data = {head: (load("train"), load("dev")) for head, load in LOADERS.items()}
    plain = [words.cut(text) for text in corpora.plain_texts()]
    known, _, table = vectors.learn(plain, options.width, least=options.least)
    config = encoder.EncoderConfig(len(known), width=options.width)
    vocabulary = words.Vocabulary(known, corpora.vader(), config.piece_rows, config.phrase_rows)
    say(words=len(known), seconds=time.process_time() - started)
    tasks = [
        fit.Task(head, vocabulary.encode(rows.texts), torch.from_numpy(rows.labels), len(rows.names), REPEATS[head])
        for head, (rows, _) in data.items()
    ]
    net = fit.fit(config, tasks, table, fit.Plan(epochs=options.epochs, seed=options.seed), lambda line: say(**line))
    say(seconds=time.process_time() - started)
    wide = {}
    for head, (rows, dev) in data.items():
        with torch.no_grad():
            deep = net.heads[head](fit.features(net, vocabulary.encode(dev.texts)))
        wide[head] = widened(head, rows, dev, deep)
    emotions, intents = data["emotion"][0].names, data["intent"][0].names
    made = Reader(net, vocabulary, emotions, intents, Cuts((0.0,) * len(emotions)), wide)
    about = {"data": "GoEmotions (CC BY 4.0), CLINC150 (CC BY 3.0), polarity and subjectivity (CC BY 4.0), VADER (MIT)"}
    about |= {"seed": options.seed, "epochs": options.epochs}
    reader.save(made, options.out, about)
    made = reader.load(options.out)  # as it is stored: thresholds are for these numbers
    dev = data["emotion"][1]
    scores = made.logits(dev.texts)["emotion"].numpy()
    halves = {prior: split_half(dev.labels, scores, prior) for prior in PRIORS}
    cuts = measures.thresholds(dev.labels, scores, max(halves, key=lambda prior: halves[prior]))
    found: dict[str, Any] = {"dev": {"emotion_split_half_by_prior": halves}}
    found["dev"]["emotion"] = float(measures.f1(dev.labels, scores > cuts).mean())
    dev = data["intent"][1]
    logits = made.logits(dev.texts)["intent"]
    found["dev"]["intent"], cut = intent_scores(logits, dev)
    made.cuts = Cuts(tuple(map(float, cuts)), cut)
    reader.save(made, options.out, about)
    found["dev"] |= valence(made, options, about)
    found["bytes"] = options.out.stat().st_size
    found["parameters"] = {"network": sum(p.numel() for p in made.net.parameters())}
    found["parameters"]["n-grams"] = sum(w.table.numel() for w in made.wide.values())
    return found


def valence(made: Reader, options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Fits and stores the head of valence, arousal and dominance."""
    rows, dev = corpora.emobank("train"), corpora.emobank("dev")
    labels = torch.from_numpy(rows.labels)
    inside, held = (Vad.inputs(made.logits(part.texts)) for part in (rows, dev))
    listed = ngrams.listed(rows.texts, ROWS["vad"])
    inverse = ngrams.frequencies(listed, ROWS["vad"])
    bags = ngrams.bags(listed, inverse)

    def score(found: torch.Tensor) -> list[float]:
        return [measures.correlation(found[:, i].numpy(), dev.labels[:, i]) for i in range(3)]

    best, chosen, said = -1.0, None, {}
    deep = {penalty: fit.ridge(inside, labels, penalty) for penalty in (3e3, 1e4, 3e4)}
    for small in PENALTIES["vad"]:
        table, bias = ngrams.fit(bags, ROWS["vad"], labels, "values", small)
        wide = Wide(inverse, table, bias, 1.0)
        other = wide.logits(dev.texts)
        for large, (weight, offset) in deep.items():
            linear = held @ weight.T + offset
            for share in (0.0, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0):
                value = score((1.0 - share) * linear + share * other)
                if sum(value) > best:
                    best, chosen = sum(value), Vad(weight, offset, Wide(inverse, table, bias, share))
                    said = {"vad": value, "ridge": large, "n-gram penalty": small, "n-gram share": share}
        say(penalty=small, wide=score(other), best=said)
    reader.save_vad(chosen, options.vad, about | {"data": "EmoBank (CC BY-SA 4.0)"})
    return said


def intent_scores(logits: torch.Tensor, data: Labelled) -> tuple[dict[str, Any], float]:
    """Accuracy in scope, how well what is out of scope is told, and the score to reject above."""
    inside = data.labels < len(data.names) - 1
    right = (logits[:, :-1].argmax(1).numpy() == data.labels)[inside]
    score = reader.out_of_scope(logits).numpy()
    recall, cut = measures.recall_at_accuracy(right, score[inside], score[~inside], IN_SCOPE)
    found = {"in_scope": float(right.mean()), "auroc": measures.auroc(score[~inside], score[inside])}
    found[f"recall_at_{IN_SCOPE:.0%}"] = recall
    return found, cut if np.isfinite(cut) else 0.0


def test(options: argparse.Namespace) -> dict[str, Any]:
    made = reader.load(options.model, options.vad)
    found: dict[str, Any] = {"bytes": {"affect": options.model.stat().st_size, "vad": options.vad.stat().st_size}}
    data = corpora.goemotions("test")
    said = made.logits(data.texts)["emotion"].numpy() > np.array(made.cuts.emotion)
    each = measures.f1(data.labels, said)
    micro = 2.0 * (data.labels * said).sum() / (data.labels.sum() + said.sum())
    found["emotion"] = {"macro_f1": float(each.mean()), "micro_f1": float(micro)}
    found["emotion"]["macro_95"] = measures.bootstrap(
        lambda rows: float(measures.f1(data.labels[rows], said[rows]).mean()), len(said)
    )
    found["emotion"]["f1"] = {name: round(float(value), 3) for name, value in zip(data.names, each, strict=True)}
    data = corpora.clinc150("test")
    logits = made.logits(data.texts)["intent"]
    scores, _ = intent_scores(logits, data)
    inside = data.labels < len(data.names) - 1
    right_of_all = logits[:, :-1].argmax(1).numpy() == data.labels
    right, score = right_of_all[inside], reader.out_of_scope(logits).numpy()
    kept, thrown = score[inside], score[~inside]
    scores["in_scope_95"] = measures.bootstrap(lambda rows: float(right[rows].mean()), len(right))
    scores["auroc_95"] = measures.bootstrap(
        lambda rows: measures.auroc(score[rows][~inside[rows]], score[rows][inside[rows]]), len(score)
    )
    scores["recall_95"] = measures.bootstrap(
        lambda rows: measures.recall_at_accuracy(
            right_of_all[rows][inside[rows]], score[rows][inside[rows]], score[rows][~inside[rows]], IN_SCOPE
        )[0],
        len(score),
    )
    cut = made.cuts.out_of_scope
    scores["at_cut_of_dev"] = {
        "in_scope": float((right & (kept <= cut)).mean()),
        "recall": float((thrown > cut).mean()),
    }
    found["intent"] = scores
    for head in HEADS[2:]:
        data = LOADERS[head]("test")
        good = (made.logits(data.texts)[head].numpy() > 0.0) == data.labels
        found[head] = {"accuracy": float(good.mean()), "texts": len(good)}
        found[head]["95"] = measures.bootstrap(lambda rows, good=good: float(good[rows].mean()), len(good))
    data = corpora.emobank("test")
    vad = made.vad.read(made.logits(data.texts), data.texts).numpy()
    for i, name in enumerate(data.names):
        x, y = vad[:, i], data.labels[:, i]
        found[name] = {"r": measures.correlation(x, y)}
        found[name]["95"] = measures.bootstrap(lambda rows, x=x, y=y: measures.correlation(x[rows], y[rows]), len(x))
    texts = data.texts[:200]
    started = time.process_time()
    made.read(texts)
    found["milliseconds_per_text"] = round((time.process_time() - started) * 1e3 / len(texts), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    learn = verbs.add_parser("train")
    learn.add_argument("--out", type=Path, required=True)
    learn.add_argument("--vad", type=Path, required=True)
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--epochs", type=int, default=6)
    learn.add_argument("--width", type=int, default=96)
    learn.add_argument("--least", type=int, default=3, help="times a word must occur to have a vector of its own")
    measure = verbs.add_parser("test")
    measure.add_argument("model", type=Path)
    measure.add_argument("vad", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    found = (train if options.verb == "train" else test)(options)
    found["processor_seconds"] = round(time.process_time() - started, 1)
    print(json.dumps({"benchmark": f"affect {options.verb}", "machine": _machine.describe(), **found}, indent=1))


if __name__ == "__main__":
    main()
