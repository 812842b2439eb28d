"""neuro chat: a line from you, a line from the model, in one stream that learns at the end of every turn.

Under each reply stands, on standard error, one quiet line: what the turn was like inside. A line that is empty is no turn;
the end of the input (Ctrl-D) ends the conversation, and an interrupt ends the reply and then the conversation.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuro.cli.run import add_writing_arguments, sampler
from neuro.config import HORMONES
from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.brain import Brain
    from neuro.events import CommitEvents, Events
    from neuro.sampling import Sampler
    from neuro.session import Session

COMMON = ("backend", "seed", "set")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="small", help="a shipped model, a folder or a Hugging Face id")
    add_writing_arguments(parser)


class Turn:
    """An observer that keeps what happened since it was last asked."""

    def __init__(self) -> None:
        self.events: list[Events] = []
        self.writes = 0
        self.commit: CommitEvents | None = None

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        self.events += events
        self.writes += int(commit.writes[0])
        self.commit = commit

    def summary(self) -> dict[str, float]:
        """Means over the turn's tokens, hormones after it; then begin anew."""
        import torch

        def mean(name: str) -> torch.Tensor:
            return torch.cat([getattr(event, name)[0] for event in self.events]).double().mean(0)

        assert self.commit is not None
        affect, route = mean("affect"), torch.cat([event.route[0] for event in self.events])
        found = {"valence": float(affect[0]), "arousal": float(affect[1])}
        found |= {name: float(mean(name)) for name in ("salience", "novelty", "recall_gate", "surprise")}
        found |= dict(zip(HORMONES, self.commit.modulators[0].tolist(), strict=True))
        found |= {"layers_run": float(route.sum(1).mean()), "layers": route.shape[1], "writes": self.writes}
        found |= {"filled": int(self.commit.filled[0])}
        self.events, self.writes = [], 0
        return found


def run(args: argparse.Namespace) -> int:
    from neuro import memory_file
    from neuro.cli import _model
    from neuro.session import Session
    from neuro.transcript import Transcript

    if args.tokens < 1:
        raise UsageError(f"--tokens: got {args.tokens}, expected at least 1.", "Give the most that a reply may have.")
    brain = _model.load(args.model, args)
    turn = Turn()
    session = Session(brain, observers=[turn], transcript=Transcript())
    if args.memory:
        session.state, session.transcript = memory_file.open_or_new(args.memory, brain, session.state)
    choose = sampler(brain, args.seed, args.temperature, args.top_p)
    code = 0
    try:
        for line in _lines(args.json or args.quiet):
            _reply(brain, session, choose, line, args)
            summary = turn.summary()
            if args.json:
                print(json.dumps({"event": "turn", "state": {name: round(v, 4) for name, v in summary.items()}}))
            elif not args.quiet:
                print(_quiet_line(summary), file=sys.stderr)
    except KeyboardInterrupt:
        session.commit()
        code = 130
    saved = memory_file.save(args.memory, brain, session.state, session.transcript) if args.memory else None
    if args.json:
        print(json.dumps({"event": "done", "schema": "neuro.chat/1", "saved": saved}))
    elif saved is not None and not args.quiet:
        print(f"saved   {saved} memories in {args.memory}", file=sys.stderr)
    return code


def _lines(silent: bool) -> Iterator[str]:
    """What is typed, line by line, without empty lines."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # some locales let through what no text holds
    while True:
        if not silent and sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input: not UTF-8 ({error.reason}).", "Convert the text to UTF-8.") from error
        if not line:
            return
        if line.strip():
            yield line.strip()


def _reply(brain: Brain, session: Session, choose: Sampler, line: str, args: argparse.Namespace) -> None:
    """Read a line, write one, and commit."""
    import torch

    from neuro.tokenizer import StreamDecoder

    first = not bool(session.state.started.any())
    ids = [brain.tokenizer.bos_id] * first + brain.tokenizer.encode(("" if first else "\n") + line + "\n")
    session.feed(torch.tensor([ids]))
    decoder, said = StreamDecoder(brain.tokenizer), ""
    for token in session.generate(choose, args.tokens):
        piece = decoder.push(token)
        if "\n" in (said + piece).lstrip("\n"):
            break
        said += piece
        if not args.json:
            print(piece if said.strip() else "", end="", flush=True)
    said += decoder.flush()
    session.commit()
    print(json.dumps({"event": "reply", "text": said.strip()}) if args.json else "")


def _quiet_line(summary: dict[str, float]) -> str:
    hormones = " ".join(f"{name} {summary[name]:.2f}" for name in HORMONES)
    return (
        f"[valence {summary['valence']:+.2f} arousal {summary['arousal']:+.2f}; salience {summary['salience']:.2f}, "
        f"surprise {summary['surprise']:.1f} nats, recall {summary['recall_gate']:.2f}; {hormones}; "
        f"{summary['layers_run']:.1f} of {summary['layers']:.0f} layers; {summary['filled']:.0f} memories, "
        f"{summary['writes']:.0f} new]"
    )
