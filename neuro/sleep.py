"""Sleep: rounds without input in which a brain replays what its episodic memory holds.

    state, report = sleep.sleep(brain, state, rounds=4)

1. Replay: stretches of tokens that are stored in a row run through the cortex again, from fresh activity and with an empty
   episodic memory, so that each commit writes into the fast weights what the cortex alone still gets wrong: what was an
   episode becomes a habit. The store is all there is to replay from: a token is read off its stored value, and no text is
   looked up. A round takes stretches of ``PER_ROUND`` tokens, in the order of their priority,

       mean strength * surprise when last replayed * DECAY

   and those never replayed first, the strongest first (prioritized replay: Schaul et al. 2016, arXiv:1511.05952; from one
   memory into the other: McClelland, McNaughton & O'Reilly 1995, doi:10.1037/0033-295X.102.3.419).
2. Slots that were of use are strengthened, and 3. slots that say the same are merged into the newest, which frees the others
   (`neuro.memory.replay`).

What a stream reads next finds other memories; its activity, position and hormones are as they were. The same state gives
the same sleep: there is nothing random in it. differs: priority is a rank, not a probability; reverse replay is left out.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.layers.norm import normalize, wide
from neuro.memory import contents, replay
from neuro.regions.hippocampus import Hippocampus
from neuro.state import BrainState, HippocampusState

STRETCH = 1024  # tokens of one replay at most; shorter ones start without context more often, and teach less
SHORTEST = 8  # a shorter stretch is hardly more than a start without context
PER_ROUND = 2048  # tokens, and what is left of the last stretch
DECAY = (
    0.87  # share of its surprise that a stretch keeps after a replay: .84 to .91 over six replays of WikiText-2 valid
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What one sleep did."""

    rounds: int
    stretches: int  # there were to replay
    replayed_tokens: int  # over all rounds
    surprise: list[float]  # nats per token of what each round replayed, before its own commits
    merged: int  # slots freed
    strengthened: int  # slots that rose
    held: int  # slots filled afterwards


@torch.no_grad()
def sleep(
    brain: Brain, state: BrainState, rounds: int, replays: bool = True, strengthens: bool = True, merges: bool = True
) -> tuple[BrainState, Report]:
    """One stream, between two spans, after ``rounds`` rounds of sleep; ``state`` stays as it is.

    Args:
        brain: with an episodic memory; without a procedural one there is nobody to replay to.
        state: of one stream, committed.
        rounds: of replay.
        replays, strengthens, merges: the three parts, to leave one out.

    Raises:
        UsageError: fewer than one round, a batch, uncommitted tokens, or no episodic memory.
    """
    memory = state.regions.hippocampus
    if not isinstance(memory, HippocampusState):
        raise UsageError("sleep: this brain has no episodic memory.", "Use a model with brain.hippocampus.enabled.")
    if rounds < 1:
        raise UsageError(f"sleep: got {rounds} rounds, expected at least 1.", "Give how often to replay.")
    if state.started.shape[0] != 1:
        raise UsageError(f"sleep: got {state.started.shape[0]} streams, expected one.", "Let each sleep by itself.")
    if int(state.clock):
        raise UsageError(f"sleep: {int(state.clock)} tokens are not committed.", "Commit before sleeping.")
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)
    keys, values, strengths, origins = (x[0] for x in (memory.keys, memory.values, memory.strengths, memory.origins))
    tokens = tokens_of(brain, values)
    stretches = replay.sequences(strengths, origins, STRETCH, SHORTEST) if replays and brain.config.fast_rank else []
    surprise: list[float] = []
    replayed = 0
    if stretches:
        state, surprise, replayed = _replay(
            brain, state, [tokens[s] for s in stretches], [float(strengths[s].mean()) for s in stretches], rounds
        )
    before, strengths = strengths, strengths.clone()
    if strengthens:
        strengths = replay.strengthened(strengths, replay.usefulness(region.memory, keys, values, strengths, origins))
    rose = int((strengths > before).sum())
    freed = torch.zeros(0, dtype=torch.int64, device=strengths.device)
    if merges:
        freed, stays = replay.duplicates(keys, strengths, origins, tokens)
        for slot, heir in zip(freed.tolist(), stays.tolist(), strict=True):
            strengths[heir] = torch.maximum(strengths[heir], strengths[slot])
    left = torch.ones_like(strengths).index_fill(0, freed, 0.0)
    after = memory._replace(
        keys=(keys * left.unsqueeze(1)).unsqueeze(0),
        values=(values * left.unsqueeze(1)).unsqueeze(0),
        strengths=(strengths * left).unsqueeze(0),
        origins=(origins * left).unsqueeze(0),
    )
    if isinstance(memory.ids, Tensor):
        after = after._replace(ids=memory.ids * left)
    if isinstance(memory.phrases, Tensor):
        after = after._replace(phrases=memory.phrases * left.unsqueeze(1))
    if isinstance(memory.begins, Tensor):
        after = after._replace(begins=memory.begins * left)
    held = int((after.strengths > 0).sum())
    report = Report(rounds, len(stretches), replayed, surprise, len(freed), rose, held)
    return state._replace(regions=state.regions._replace(hippocampus=after)), report


def tokens_of(brain: Brain, values: Tensor) -> Tensor:
    """The token whose value each stored one [M,D] is nearest to [M] int64."""
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)
    relay = brain.embedding.unsqueeze(0) * brain.config.d_model**0.5
    if "thalamus" in brain.regions:
        mood = brain.modulators(brain.init_state(1))
        relay = brain.region("thalamus").scan({"embedding": relay, "modulators~": mood}, ())[0]["relay"]
    known = normalize(wide(region.value(relay)))[0]
    return torch.cat([(part @ known.T).argmax(1) for part in values.split(1024)])


def _replay(
    brain: Brain, state: BrainState, stretches: list[Tensor], strengths: list[float], rounds: int
) -> tuple[BrainState, list[float], int]:
    """(state with other fast weights, nats per token of each round, tokens replayed)."""
    expected = [float("inf")] * len(stretches)  # surprise of the next replay
    told, total = [], 0
    for _ in range(rounds):
        # Never replayed ones tie at infinity, so the strength decides; sorting is stable.
        order = sorted(range(len(stretches)), key=lambda n: (-expected[n] * strengths[n], -strengths[n]))
        nats, count = 0.0, 0
        for number in order:
            if count >= PER_ROUND:
                break
            state, cost = relive(brain, state, stretches[number])
            expected[number] = DECAY * cost
            nats, count = nats + cost * len(stretches[number]), count + len(stretches[number])
        told.append(nats / count)
        total += count
    return state, told, total


def relive(brain: Brain, state: BrainState, tokens: Tensor) -> tuple[BrainState, float]:
    """Run tokens [n] from fresh activity through the cortex, which learns -> (state, nats per token before each commit)."""
    scratch = contents.put(_without_slots(brain), _habits(state))
    nats = []
    for part in tokens.split(brain.config.plasticity_span):
        out = brain.scan(part.unsqueeze(0), scratch)
        nats.append(out.aux.surprise[0])
        scratch = contents.emptied(brain.commit(out.state)[0], "episodic")
    return contents.put(state, _habits(scratch)), float(torch.cat(nats).sum()) / max(1, len(tokens) - 1)


def _habits(state: BrainState) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in contents.held(state).items() if name in contents.PROCEDURAL}


def _without_slots(brain: Brain) -> BrainState:
    """A fresh state whose episodic memory has room for one span's writes and nothing in it: reading it costs nothing."""
    state, h = brain.init_state(1), brain.config.hippocampus
    memory = state.regions.hippocampus
    assert isinstance(memory, HippocampusState)
    few = min(h.slots, max(h.writes_per_span, h.top_k))
    small = {
        name: getattr(memory, name)[:, :few] for name in contents.SLOTTED if isinstance(getattr(memory, name), Tensor)
    }
    return state._replace(regions=state.regions._replace(hippocampus=memory._replace(**small)))
