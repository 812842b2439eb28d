"""neuro run: continue a prompt, and say what happened inside."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import select
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.brain import Brain
    from neuro.events import CommitEvents, Events
    from neuro.sampling import Sampler
    from neuro.workload import Workload

DEFAULT_PROMPT = "The history of the city began when"
TOKENS, TEMPERATURE, TOP_P = 60, 1.0, 0.95

COMMON = ("backend", "seed", "set", "out")
OUT_IS_FOLDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    parser.add_argument("prompt", nargs="?", default=None, help="text to continue; '-' reads standard input")
    add_writing_arguments(parser)
    parser.add_argument("--record", metavar="FOLDER", help="keep every spike, membrane and event in an empty FOLDER")


def add_writing_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of verbs that write."""
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"how many tokens to write (default: {TOKENS})")
    parser.add_argument(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        help=f"0 always takes the likeliest token (default: {TEMPERATURE})",
    )
    parser.add_argument(
        "--top-p", type=float, default=TOP_P, help=f"share of probability to sample from (default: {TOP_P})"
    )
    parser.add_argument("--memory", metavar="FILE", help="load the memory from FILE if it exists, and save it there")


class _Commits:
    """An observer that keeps the commits, and prints them as JSON lines when asked to."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        if self.as_json and int(commit.tokens):
            from neuro.config import HORMONES

            record = {
                "event": "commit",
                "tokens": int(commit.tokens),
                "writes": int(commit.writes[0]),
                "evictions": int(commit.evictions[0]),
                "filled": int(commit.filled[0]),
                "surprise_nats": round(float(commit.surprise[0]), 4),
                "hormones": dict(zip(HORMONES, [round(x, 4) for x in commit.modulators[0].tolist()], strict=True)),
            }
            print(json.dumps(record), flush=True)


def run(args: argparse.Namespace) -> int:
    import torch

    from neuro import accounting, memory_file, recorder
    from neuro.cli import _model
    from neuro.session import Session
    from neuro.tokenizer import StreamDecoder
    from sims.energy.measured import RaplMeter

    if args.tokens < 0:
        raise UsageError(f"--tokens: got {args.tokens}, expected at least 0.", "Give how many tokens to write.")
    prompt = _prompt(args.prompt)
    record = args.record is not None
    brain = _model.load(args.model, args, record_raster=record, record_membrane=record)
    commits = _Commits(args.json)
    recording = recorder.for_brain(args.record, brain, about={"model": str(args.model)}) if record else None
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(prompt)]
    tally = accounting.Tally(brain, prefill=len(ids))
    session = Session(brain, observers=[tally, commits, *([recording] if recording else [])])
    if args.memory:
        session.state, session.transcript = memory_file.open_or_new(args.memory, brain, session.state)
    choose = sampler(brain, args.seed, args.temperature, args.top_p)
    decoder = StreamDecoder(brain.tokenizer)
    if not args.json:
        _write(prompt)
    interrupted, written = False, 0
    meter = RaplMeter()
    with _line_ended(not args.json), meter, recording or contextlib.nullcontext():
        started = time.perf_counter()
        session.feed(torch.tensor([ids]))
        prefill_seconds = time.perf_counter() - started
        try:
            for token in session.generate(choose, args.tokens):
                written += 1
                text = decoder.push(token)
                if args.json:
                    print(json.dumps({"event": "token", "id": token, "text": text}), flush=True)
                else:
                    _write(text)
        except KeyboardInterrupt:
            interrupted = True
        session.commit()
        decode_seconds = time.perf_counter() - started - prefill_seconds
    rest = decoder.flush()
    if not args.json:
        _write(rest + "\n")  # before anything is saved, so that an error of that begins a line
    spent = (prefill_seconds, decode_seconds)
    load = accounting.workload(brain, tally, str(args.model), spent, *meter.reading())
    saved = memory_file.save(args.memory, brain, session.state, session.transcript) if args.memory else None
    run_file = _save(args.out, load) if args.out else None
    if args.json:
        _print_done(brain, tally, load, written, saved, rest)
    elif not args.quiet:
        speeds = (len(ids) / max(1e-9, prefill_seconds), written / max(1e-9, decode_seconds))
        _print_summary(brain, tally, load, written, speeds)
        if saved is not None:
            _say(f"saved   {saved} memories in {args.memory}")
        if recording is not None:
            _say(
                f"saved   {recording.saved} tokens in {args.record}; draw them with: neuro show {args.record} --spikes"
            )
        if run_file:
            _say(f"saved   what this run did in {run_file}; price it with: neuro energy {run_file}")
    return 130 if interrupted else 0


def measure(model: str, text: str | None, args: argparse.Namespace) -> Workload:
    """The counted work of reading ``text`` (default: a short prompt) and writing as `run` does; for `neuro energy MODEL`."""
    import torch

    from neuro import accounting
    from neuro.cli import _model
    from neuro.session import Session
    from sims.energy.measured import RaplMeter

    brain = _model.load(model, args)
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(_prompt(text))]
    tally = accounting.Tally(brain, prefill=len(ids))
    session = Session(brain, observers=[tally])
    meter = RaplMeter()
    with meter:
        started = time.perf_counter()
        session.feed(torch.tensor([ids]))
        prefill_seconds = time.perf_counter() - started
        for _ in session.generate(sampler(brain, args.seed), TOKENS):
            pass
        session.commit()
        decode_seconds = time.perf_counter() - started - prefill_seconds
    return accounting.workload(brain, tally, model, (prefill_seconds, decode_seconds), *meter.reading())


def sampler(brain: Brain, seed: int, temperature: float = TEMPERATURE, top_p: float = TOP_P) -> Sampler:
    """The one way that a verb writes: with the same seed, `run` and `energy` write the same."""
    from neuro.sampling import Sampler

    return Sampler(temperature, top_p, brain.tokenizer.never_written, seed)


def _prompt(given: str | None) -> str:
    if given is None:
        if _piped():
            raise UsageError(
                "standard input: got a text and no prompt, expected '-' as the prompt.",
                "Give '-' to continue what is piped in, or a prompt to leave it alone.",
            )
        return DEFAULT_PROMPT
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input: not UTF-8 at byte {error.start}.", "Convert the text to UTF-8.") from error


def _piped() -> bool:
    """Whether something waits at standard input that nobody types; False where that cannot be asked."""
    if sys.stdin is None or sys.stdin.isatty():
        return False
    try:
        ready, _, _ = select.select([sys.stdin.fileno()], [], [], 0)
    except (OSError, ValueError):  # Windows asks sockets alone
        return False
    return bool(ready and isinstance(sys.stdin.buffer, io.BufferedReader) and sys.stdin.buffer.peek(1))


def _save(out: str, load: Workload) -> Path:
    from neuro import atomic

    path = Path(out) / "run.json"
    atomic.write_text(path, load.to_json() + "\n")
    return path


def _print_done(brain: Brain, tally, load: Workload, written: int, saved: int | None, rest: str) -> None:
    from neuro import accounting
    from sims.energy.report import estimate

    layers = zip(accounting.spiking_names(brain), tally.spikes, strict=True)
    record = {
        "event": "done",
        "schema": "neuro.run/1",
        "tokens": written,
        "text": rest,  # of a character that the last token left unfinished
        "backend": brain.backend.name,
        "reason": brain.backend.reason,
        "tokens_per_second": round(load.tokens / load.seconds, 1),
        "spikes_per_token": {name: round(count / load.tokens, 2) for name, count in layers},
        "writes": tally.writes,
        "filled": tally.filled,
        "memory": _memory_words(brain, tally),
        "saved": saved,
        "energy": estimate(load, refined=False).to_dict(),
    }
    print(json.dumps(record), flush=True)


def _print_summary(brain: Brain, tally, load: Workload, written: int, speeds: tuple[float, float]) -> None:
    from sims.energy.text import summary_lines

    _say("")
    _say(f"backend {brain.backend.name} ({load.hardware}): {brain.backend.reason}")
    wrote = f", wrote {written} at {speeds[1]:.0f} tokens/s" if written else ""
    _say(f"speed   read {tally.prefill} tokens at {speeds[0]:.0f} tokens/s{wrote}")
    for p in load.populations:
        per_token = p.spikes / load.tokens
        rate = 100 * per_token / p.neurons
        # In a token of several steps a neuron may fire as often.
        once = p.updates == p.neurons * load.tokens
        what = f"of {p.neurons} neurons fire" if once else f"spikes of {p.neurons} neurons"
        _say(f"spikes  {p.name}: {per_token:.1f} {what} per token ({rate:.1f} %)")
    routed = [count / load.tokens for count in tally.routed]
    _say(
        ("route   layers run for " if brain.config.skips_layers else "route   feed-forwards are driven for ")
        + ", ".join(f"{100 * share:.0f} %" for share in routed)
        + " of the tokens"
    )
    _say("memory  " + _memory_words(brain, tally))
    for line in summary_lines(load):
        _say("energy  " + line)


def _memory_words(brain: Brain, tally) -> str:
    if "hippocampus" not in brain.regions:
        return "nothing written: this brain has no hippocampus"
    slots = brain.config.hippocampus.slots
    if tally.writes == 0:
        return "nothing written: a memory is what followed a token, and fewer than two tokens went through"
    return (
        f"hippocampus wrote {tally.writes} episodic memories in {tally.commits} commit{'s' * (tally.commits != 1)} "
        f"({1000 * tally.writes / tally.tokens:.0f} per 1,000 tokens; {tally.filled} of {slots} slots filled, "
        f"{tally.evictions} older ones replaced)"
    )


@contextlib.contextmanager
def _line_ended(text: bool) -> Iterator[None]:
    """End the line of an unfinished ``text``, so that the error that broke it off begins its own."""
    try:
        yield
    except BaseException:
        if text:
            with contextlib.suppress(OSError):  # the error is that standard output takes no more
                _write("\n")
        raise


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
