"""Prosody from recordings and from text: pitch against a second implementation, prominence against counting.

    python benchmarks/prosody.py audio
    python benchmarks/prosody.py train --out FILE    # the model that is shipped; 5 passes, under two minutes of one core
    python benchmarks/prosody.py text FILE           # on Helsinki prosody's test split, once

Audio: pitch of `neuro.sensors.prosody` (pYIN of librosa) and of an autocorrelation tracker written here (Boersma 1993, with
its published costs: normalized autocorrelation divided by the window's, best path over frames) on the 300 test recordings of
the Free Spoken Digit Dataset; frame, loudness gate and pYIN's threshold prior were set on 60 training recordings (`--dev`).
Both might be wrong together: there is no laryngograph. Gross error: share of frames voiced for both whose pitch differs by more
than 20 %; voicing error: share of all frames voiced for one alone. Intervals: bootstrap over speakers and recordings.

Text: trained on the dev split (its train split is not at hand), sizes and epochs chosen on eight of its forty readers held
out (`train --hold-out`). Floor: the label that a word had most often in dev (the majority
for unknown words). Intervals: bootstrap over readers. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import _machine
import numpy as np

from neuro.affect import corpora, prominence, vectors, words
from neuro.affect.corpora import SpokenWord
from neuro.evaluate import statistics
from neuro.sensors import prosody, spoken_digits

STRENGTH, OCTAVE_COST, JUMP_COST, VOICING_COST = 0.45, 0.01, 0.35, 0.14
CANDIDATES = 6


def autocorrelation_pitch(samples: np.ndarray, rate: int) -> np.ndarray:
    """f0 [F] in Hz, NaN where not voiced, at the same frames as `prosody.track`."""
    sound = samples.astype(np.float64)
    sound -= sound.mean()
    size, hop = 2 * round(0.040 * rate / 2), round(prosody.HOP_S * rate)
    low, high = int(rate / prosody.HIGH_HZ), min(int(rate / prosody.LOW_HZ), size // 2)
    window = np.hanning(size)
    padded = np.pad(sound, size // 2)
    framed = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: 1 + len(sound) // hop]
    peak, loudest = np.abs(framed).max(1), np.abs(sound).max() + 1e-9
    points = 1 << (2 * size - 1).bit_length()

    def correlation(x: np.ndarray) -> np.ndarray:
        found = np.fft.irfft(np.abs(np.fft.rfft(x, points)) ** 2, points)[..., : size // 2 + 2]
        return found / np.maximum(found[..., :1], 1e-9)

    r = correlation((framed - framed.mean(1, keepdims=True)) * window) / correlation(window)
    best_hz = np.full((len(r), CANDIDATES), np.nan)
    best = np.full((len(r), CANDIDATES), -np.inf)
    quiet = np.maximum(0.0, 2.0 - (peak / loudest) / (0.03 / (1.0 + STRENGTH)))
    best[:, 0] = STRENGTH + quiet  # not voiced
    for t, row in enumerate(r):
        top = np.nonzero((row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:]))[0] + 1
        top = top[(top >= low) & (top <= high)]
        if len(top):
            a, b, c = row[top - 1], row[top], row[top + 1]
            shift = 0.5 * (a - c) / (a - 2.0 * b + c)
            hz, value = rate / (top + shift), b - 0.25 * (a - c) * shift
            value -= OCTAVE_COST * np.log2(prosody.LOW_HZ * (top + shift) / rate)
            order = np.argsort(-value)[: CANDIDATES - 1]
            best_hz[t, 1 : 1 + len(order)], best[t, 1 : 1 + len(order)] = hz[order], value[order]
    voiced = np.isfinite(best_hz)
    octave = np.log2(np.where(voiced, best_hz, 1.0))
    score, back = best[0], np.zeros(best.shape, int)
    for t in range(1, len(best)):
        both = voiced[t][:, None] & voiced[t - 1][None]
        one = voiced[t][:, None] ^ voiced[t - 1][None]
        cost = np.where(both, JUMP_COST * np.abs(octave[t][:, None] - octave[t - 1][None]), VOICING_COST * one)
        total = score[None] - cost
        back[t] = total.argmax(1)
        score = best[t] + total.max(1)
    state, path = int(score.argmax()), np.empty(len(best), int)
    for t in range(len(best) - 1, -1, -1):
        path[t] = state
        state = back[t, state]
    return best_hz[np.arange(len(best)), path]


def compare(takes: list[spoken_digits.Take]) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Errors over recordings, and by speaker the counts [recordings, 4]: gross, both voiced, one voiced, frames."""
    cents, counts = [], defaultdict(list)
    seconds = [0.0, 0.0]
    for take in takes:
        started = time.process_time()
        ours = prosody.track(take.samples, spoken_digits.RATE_HZ).f0_hz
        middle = time.process_time()
        other = autocorrelation_pitch(take.samples, spoken_digits.RATE_HZ)
        seconds[0] += middle - started
        seconds[1] += time.process_time() - middle
        both = np.isfinite(ours) & np.isfinite(other)
        gap = np.abs(ours[both] / other[both] - 1.0)
        cents.append(1200.0 * np.abs(np.log2(ours[both] / other[both])))
        one = np.isfinite(ours) != np.isfinite(other)
        counts[take.speaker].append(np.array([(gap > 0.2).sum(), both.sum(), one.sum(), len(ours)], float))
    found = {name: np.stack(rows) for name, rows in counts.items()}
    total = np.concatenate(list(found.values())).sum(0)
    result = {
        "recordings": len(takes),
        "frames": int(total[3]),
        "voiced_for_both": total[1] / total[3],
        "gross_error": total[0] / total[1],
        "voicing_error": total[2] / total[3],
        "median_cents": float(np.median(np.concatenate(cents))),
        "processor_seconds": {"pyin": round(seconds[0], 1), "autocorrelation": round(seconds[1], 1)},
    }
    return result, {name: list(rows) for name, rows in found.items()}


def audio(options: argparse.Namespace) -> dict[str, Any]:
    takes = spoken_digits.load()
    prosody.track(takes[0].samples, spoken_digits.RATE_HZ)  # librosa compiles at its first call
    if options.dev:
        return {"dev": compare([take for take in takes if take.index == 10])[0]}
    found, by_speaker = compare([take for take in takes if take.index < 5])
    random = np.random.default_rng(0)
    draws = []
    for _ in range(statistics.DRAWS):
        names = random.choice(sorted(by_speaker), len(by_speaker))
        rows = [by_speaker[n][i] for n in names for i in random.integers(0, len(by_speaker[n]), len(by_speaker[n]))]
        draws.append(np.sum(rows, 0))
    sums = np.stack(draws, 1)
    found["gross_error_95"] = statistics.interval(sums[0] / sums[1])
    found["voicing_error_95"] = statistics.interval(sums[2] / sums[3])
    for name, rows in by_speaker.items():
        total = np.sum(rows, 0)
        found[name] = {"gross_error": total[0] / total[1], "voicing_error": total[2] / total[3]}
    return found


def learned(spoken: list[list[SpokenWord]], seed: int, stress: bool) -> prominence.Speaker:
    """A model from labelled sentences; word vectors and frequencies from `corpora.plain_texts`."""
    texts = [words.cut(text) for text in corpora.plain_texts()]
    known, counts, table = vectors.learn(texts, prominence.ProminenceConfig(1).width)
    lexicon = prominence.Lexicon(known, counts, corpora.stress() if stress else {})
    config = prominence.ProminenceConfig(len(known))
    return prominence.Speaker(
        prominence.fit(
            config, lexicon, spoken, table, seed=seed, report=lambda line: print(line, file=sys.stderr, flush=True)
        ),
        lexicon,
    )


def scores(speaker: prominence.Speaker, spoken: list[list[SpokenWord]], causal: bool) -> np.ndarray:
    """[words, 6]: right in two classes, prominence said and measured, boundary said and measured (NaN: none), prominent."""
    rows = []
    for words_of, said in zip(spoken, speaker.read([[w.text for w in s] for s in spoken], causal), strict=True):
        for i, word in enumerate(words_of):
            if word.prominence is not None and word.prominence_value is not None:
                right = (said.prominent[i] > 0.5) == (word.prominence > 0)
                boundary = np.nan if word.boundary is None else float(word.boundary > 0)
                rows.append(
                    (right, said.value[i], word.prominence_value, said.boundary[i], boundary, word.prominence > 0)
                )
    return np.array(rows, float)


def majority(learn: list[list[SpokenWord]], spoken: list[list[SpokenWord]]) -> np.ndarray:
    """Whether the label a word had most often is right [words]."""
    labels: dict[str, Counter[bool]] = defaultdict(Counter)
    for sentence in learn:
        for word in sentence:
            if word.prominence is not None:
                labels[word.text.lower()][word.prominence > 0] += 1
    every = sum(labels.values(), Counter()).most_common(1)[0][0]
    said = {text: counts.most_common(1)[0][0] for text, counts in labels.items()}
    found = [
        said.get(w.text.lower(), every) == (w.prominence > 0) for s in spoken for w in s if w.prominence is not None
    ]
    return np.array(found, float)


def judged(speaker: prominence.Speaker, learn: dict[str, Any], spoken: dict[str, Any]) -> dict[str, Any]:
    """Prominence and boundary of sentences by reader, whole and causal, beside the floor."""
    readers = sorted(spoken)
    floor = [majority([s for r in learn.values() for s in r], spoken[reader]) for reader in readers]
    found: dict[str, Any] = {"words": int(sum(map(len, floor))), "readers": len(readers)}
    found["majority_per_word"] = float(np.concatenate(floor).mean())
    for name, causal in (("whole", False), ("causal", True)):
        by = [scores(speaker, spoken[reader], causal) for reader in readers]
        rows = np.concatenate(by)
        units = [np.stack([x[:, 0], np.ones(len(x)), x[:, 0] - f], 1) for x, f in zip(by, floor, strict=True)]
        sums = statistics.resampled_sums([unit.sum(0, keepdims=True) for unit in units])
        bounded = rows[np.isfinite(rows[:, 4])]
        found[name] = {
            "prominence": float(rows[:, 0].mean()),
            "prominence_95": statistics.interval(sums[0] / sums[1]),
            "above_majority_95": statistics.interval(sums[2] / sums[1]),
            "prominence_r": float(np.corrcoef(rows[:, 1], rows[:, 2])[0, 1]),
            "boundary": float(((bounded[:, 3] > 0.5) == bounded[:, 4]).mean()),
            "boundary_majority": float(max(bounded[:, 4].mean(), 1 - bounded[:, 4].mean())),
        }
    return found


def by_reader(split: str) -> dict[str, list[list[SpokenWord]]]:
    """Sentences of each reader."""
    found: dict[str, list[list[SpokenWord]]] = defaultdict(list)
    for name, sentence in corpora.prosody_by_file(split):
        if sentence:
            found[name.split("_")[0]].append(sentence)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("audio").add_argument("--dev", action="store_true", help="60 training recordings")
    train = verbs.add_parser("train")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--stress", action="store_true", help="with the stress of syllables from CMUdict")
    train.add_argument("--hold-out", action="store_true", help="learn from 32 readers of dev, report on the other 8")
    verbs.add_parser("text").add_argument("model", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    result: dict[str, Any]
    if options.verb == "audio":
        result = audio(options)
    elif options.verb == "train":
        spoken = by_reader("dev")
        held = sorted(spoken)[::5] if options.hold_out else []
        inside = {reader: rows for reader, rows in spoken.items() if reader not in held}
        speaker = learned([s for rows in inside.values() for s in rows], options.seed, options.stress)
        prominence.save(speaker, options.out, {"data": "Helsinki prosody dev", "seed": options.seed})
        speaker = prominence.load(options.out)
        result = {"bytes": options.out.stat().st_size, "parameters": sum(p.numel() for p in speaker.net.parameters())}
        if held:
            result |= judged(speaker, inside, {reader: spoken[reader] for reader in held})
    else:
        result = judged(prominence.load(options.model), by_reader("dev"), by_reader("test"))
    result["total_processor_seconds"] = round(time.process_time() - started, 1)
    print(json.dumps({"benchmark": f"prosody {options.verb}", "machine": _machine.describe(), **result}, indent=1))


if __name__ == "__main__":
    main()
