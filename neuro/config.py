"""The configuration of a brain, its data and its training: frozen dataclasses. `neuro.config_text` reads and writes them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from neuro import rounding
from neuro.config_text import apply_sets as apply_sets
from neuro.config_text import from_dict as from_dict
from neuro.config_text import load as load
from neuro.config_text import to_dict as to_dict
from neuro.config_text import to_toml as to_toml
from neuro.errors import UsageError

HORMONES = ("dopamine", "noradrenaline", "acetylcholine", "serotonin", "cortisol")
MIXERS = ("recurrence", "window")
FEEDFORWARDS = ("spiking", "dense", "branched")
ENCODINGS = ("dense", "spikes")
SKIPS = ("feedforward", "layer")
CONTROLLERS = ("surprise", "salient", "tagged", "learned", "random", "periodic")
RULES = ("three-factor", "delta")
OPTIMIZERS = ("adamw", "muon")
PARALLEL = ("none", "ddp", "fsdp")
GRIDS = ("none", *rounding.RECIPES)


def _need(ok: bool, where: str, got: object, expected: str) -> None:
    if not ok:
        raise UsageError(f"config {where}: got {got}, expected {expected}.", f"Set {where}.")


@dataclasses.dataclass(frozen=True)
class ThalamusConfig:
    """Sensory gate and mixture-of-depths route."""

    enabled: bool = True  # off: the embedding passes unchanged and every layer runs for every token
    route_budget: float = 0.8  # share of (token, feed-forward or layer) pairs that run; never by a ranking
    # What a token that is not routed goes without: the 'feedforward', whose output is masked, or the whole 'layer', which
    # then does no work for it.
    skips: str = "feedforward"


@dataclasses.dataclass(frozen=True)
class AmygdalaConfig:
    """Affect (valence, arousal) and salience."""

    enabled: bool = True  # off: affect 0, salience 0.5
    hidden: int = 32  # width of the evidence network
    half_life_tokens: float = 8.0  # of the affect trace
    prosody_gain: float = 0.0  # what pitch and energy of 1 add to the logit of salience; 0: nothing, as trained


@dataclasses.dataclass(frozen=True)
class EndocrineConfig:
    """Hormones: bounded first-order dynamics over tokens, never wall clock."""

    enabled: bool = True  # off: every hormone stays at 0.5
    off: tuple[str, ...] = ()  # of HORMONES those that stay at 0.5 while the others move
    half_lives_tokens: tuple[float, ...] = (64.0, 32.0, 128.0, 1024.0, 512.0)  # in the order of HORMONES
    modulates_decay: bool = False  # how fast the memories forget depends on the hormones, by trained weights
    # Sampling temperature times 2^(this (2 noradrenaline - 1)); 0: hormones leave it alone.
    temperature_octaves: float = 0.0


@dataclasses.dataclass(frozen=True)
class CortexConfig:
    """Layers of a token mixer and a feed-forward each."""

    enabled: bool = True  # off: no layers, and no fast weights on them: what the thalamus relays is what is read out
    mixers: tuple[str, ...] = ("recurrence", "window", "recurrence", "window")
    feedforwards: tuple[str, ...] = ("spiking", "spiking", "dense", "spiking")
    heads: int = 4  # of the window attention
    window: int = 64  # tokens the window attention sees besides the current one
    feedforward_width: int = 1024  # LIF neurons or hidden units per layer
    branches: int = 4  # of a 'branched' feed-forward; a token goes through one, which follows from the token
    # What the projections read: 'dense' values, or 'spikes', and then no product in the cortex reads anything else.
    encoding: str = "dense"
    burst: int = 1  # spikes of an encoding neuron per token, at most
    tau_mem_ms: float = 2.0  # membrane time constant of the LIF neurons
    dt_ms: float = 1.0  # one token is one step of this length
    v_threshold: float = 1.0  # of the membrane; soft reset subtracts it
    surrogate_slope: float = 4.0  # of the fast sigmoid in the backward pass
    rate_target: float = 0.08  # spikes per neuron and token (encoding 'spikes': per synapse) the rate loss aims at

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """(mixer, feed-forward) of each layer there is."""
        return tuple(zip(self.mixers, self.feedforwards, strict=True)) if self.enabled else ()

    @property
    def decay(self) -> float:
        """Share of the membrane potential kept over one step: exp(-dt/tau)."""
        return math.exp(-self.dt_ms / self.tau_mem_ms)


@dataclasses.dataclass(frozen=True)
class HippocampusConfig:
    """Place-cell code and episodic memory."""

    enabled: bool = True  # off: nothing is stored or recalled
    place_cells: int = 1024
    sparsity: float = 0.03  # share of place cells active for a token; with learned_sparsity the budget of their mean
    learned_sparsity: bool = (
        False  # each place cell has a trained threshold: a token takes up to four times its share, or none
    )
    key_width: int = 64  # of a stored key
    slots: int = 16384  # per stream
    top_k: int = 16  # slots read for a token
    writes_per_span: int = 64  # at most
    controller: str = "surprise"  # which tokens of a span are written first: one of CONTROLLERS
    tag: bool = False  # what a pair will be worth is foretold (`neuro.memory.tag`), for the controller "tagged"
    half_life_tokens: float = 65536.0  # of a slot's strength
    contiguity: float = (
        0.0  # cosine that what followed the moment just recalled gains, if that moment was right; 0: none
    )
    segments: bool = False  # surprise says where events begin, and contiguity leads into none (`neuro.memory.segments`)
    rebind: bool = False  # a pair whose key is stored takes its slot: a key has one value, the newest
    key_trace: float = 0.0  # share of the previous token's trace in a key; 0: a key is of one token
    key_direct: bool = False  # a key is made of the context itself as well, past the place cells
    time_cells: int = 0  # of an event clock whose rates enter the key: how long ago the last event began; 0: none
    phrase: float = (
        0.0  # added to the cosine of a slot where the same words led (`neuro.memory.phrases`); 0: not looked at
    )
    pointer: bool = False  # what followed stored moments is predicted outright too, mixed with the readout's prediction


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
    """Procedural memory: low-rank fast weights on the cortex's output projections."""

    enabled: bool = True  # off: every projection stays as training left it
    rule: str = "three-factor"  # or "delta": what comes twice in a span is not learned twice, with momentum
    rank: int = 48  # of the fast weights on each projection
    rate: float = 0.02  # of a write; training learns a factor to it for every unit
    half_life_tokens: float = 8192.0  # of a fast weight; training learns a factor to it
    max_step: float = 0.5  # Frobenius norm of what one commit may add to one projection
    max_norm: float = 6.0  # Frobenius norm of the fast weights of one projection
    # An error reaches the projections that lie before a dense feed-forward through it, not unchanged.
    through_dense: bool = False
    # Errors in units of how they vary over training text (`neuro.train.precision`): a natural gradient.
    natural: bool = False
    # Of further fast weights, on what the cortex says, which live only so long; 0: there are none.
    outward_half_life_tokens: float = 0.0
    # Of a write to the fast bias, one number a token of the vocabulary; 0: there is none.
    bias_rate: float = 0.0
    bias_half_life_tokens: float = 0.0  # of the fast bias; 0: it lives as long as a fast weight is set to


@dataclasses.dataclass(frozen=True)
class BrainConfig:
    """A whole brain. Sizes are per model; batch is chosen when a state is made."""

    vocab_size: int = 8192
    d_model: int = 256
    plasticity_span: int = 64  # tokens between two commits
    prosody_channels: int = 3  # pitch, energy, duration; zeros without audio or annotation
    thalamus: ThalamusConfig = ThalamusConfig()
    amygdala: AmygdalaConfig = AmygdalaConfig()
    endocrine: EndocrineConfig = EndocrineConfig()
    cortex: CortexConfig = CortexConfig()
    hippocampus: HippocampusConfig = HippocampusConfig()
    procedural: ProceduralConfig = ProceduralConfig()

    @property
    def fast_rank(self) -> int:
        """Rank of the fast weights on each of the cortex's output projections; 0 without a procedural memory."""
        return self.procedural.rank if self.procedural.enabled and self.cortex.enabled else 0

    @property
    def fast_projections(self) -> int:
        """What has fast weights: every output projection of the cortex, and what it says where that is asked for."""
        outward = self.procedural.outward_half_life_tokens > 0
        return 2 * len(self.cortex.layers) + outward if self.fast_rank else 0

    @property
    def points(self) -> bool:
        """Whether the hippocampus predicts tokens outright (`neuro.memory.pointer`)."""
        return self.hippocampus.enabled and self.hippocampus.pointer

    @property
    def fast_bias(self) -> bool:
        """Whether the procedural memory also learns which tokens are frequent now (`neuro.memory.fast_bias`)."""
        return self.fast_rank > 0 and self.procedural.bias_rate > 0

    @property
    def error_paths(self) -> int:
        """Dense feed-forwards that the procedural memory's errors pass on their way back."""
        dense = self.cortex.feedforwards.count("dense")
        return dense if self.fast_rank and self.procedural.through_dense else 0

    @property
    def errors_alike(self) -> tuple[int, ...]:
        """How many of `fast_projections` in a row, first layer first, are told the same error."""
        counts, here = [], 0
        for feedforward in self.cortex.feedforwards:
            here += 1  # the mixer
            if feedforward == "dense" and self.error_paths:
                counts.append(here)
                here = 0
            here += 1
        return (*counts, here + self.fast_projections - 2 * len(self.cortex.layers))

    @property
    def trace_width(self) -> int:
        """What the procedural memory keeps of a token until it is known how wrong its prediction was."""
        return self.fast_projections * self.fast_rank + self.error_paths * self.d_model

    @property
    def modulates_decay(self) -> bool:
        """Whether hormones set how fast memories forget."""
        return self.endocrine.enabled and self.endocrine.modulates_decay

    @property
    def skips_layers(self) -> bool:
        """Whether a token may go without a whole layer, which then does nothing for it."""
        return self.thalamus.enabled and self.thalamus.skips == "layer" and self.cortex.enabled

    def __post_init__(self) -> None:
        def need(ok: bool, key: str, expected: str) -> None:
            got: Any = self
            for name in key.split("."):
                got = getattr(got, name)
            _need(ok, f"brain.{key}", got, expected)

        c, h = self.cortex, self.hippocampus
        need(self.vocab_size >= 2, "vocab_size", "at least 2")
        need(self.d_model >= 1, "d_model", "at least 1")
        need(self.plasticity_span >= 1, "plasticity_span", "at least 1 token")
        need(self.prosody_channels >= 1, "prosody_channels", "at least 1")
        need(0 < self.thalamus.route_budget <= 1, "thalamus.route_budget", "in (0, 1]")
        need(self.thalamus.skips in SKIPS, "thalamus.skips", " or ".join(SKIPS))
        need(self.amygdala.hidden >= 1, "amygdala.hidden", "at least 1")
        need(self.amygdala.half_life_tokens > 0, "amygdala.half_life_tokens", "a positive number")
        need(-8 <= self.amygdala.prosody_gain <= 8, "amygdala.prosody_gain", "from -8 to 8")
        for name in self.endocrine.off:
            _need(name in HORMONES, "brain.endocrine.off", f"'{name}'", "names among " + ", ".join(HORMONES))
        lives = self.endocrine.half_lives_tokens
        positive = len(lives) == len(HORMONES) and all(life > 0 for life in lives)
        need(positive, "endocrine.half_lives_tokens", f"{len(HORMONES)} positive numbers")
        need(-4 <= self.endocrine.temperature_octaves <= 4, "endocrine.temperature_octaves", "from -4 to 4")
        for name in c.mixers:
            _need(name in MIXERS, "brain.cortex.mixers", f"'{name}'", " or ".join(MIXERS))
        for name in c.feedforwards:
            _need(name in FEEDFORWARDS, "brain.cortex.feedforwards", f"'{name}'", " or ".join(FEEDFORWARDS))
        need(len(c.mixers) >= 1, "cortex.mixers", "at least one layer")
        need(len(c.mixers) == len(c.feedforwards), "cortex.feedforwards", "one per mixer")
        divides = c.heads >= 1 and self.d_model % c.heads == 0
        need(divides, "cortex.heads", f"a divisor of d_model {self.d_model}")
        need(c.window >= 1, "cortex.window", "at least 1 token")
        need(c.feedforward_width >= 1, "cortex.feedforward_width", "at least 1")
        need(c.branches >= 2, "cortex.branches", "at least 2")
        need(c.encoding in ENCODINGS, "cortex.encoding", " or ".join(ENCODINGS))
        need(c.burst >= 1, "cortex.burst", "at least 1 spike")
        if c.encoding == "spikes":
            _only_spikes(c, self.fast_rank)
        need(c.tau_mem_ms > 0, "cortex.tau_mem_ms", "a positive time")
        need(c.dt_ms > 0, "cortex.dt_ms", "a positive time")
        need(c.v_threshold > 0, "cortex.v_threshold", "a positive number")
        need(c.surrogate_slope >= 0, "cortex.surrogate_slope", "at least 0")
        need(0 < c.rate_target <= 1, "cortex.rate_target", "in (0, 1]")
        need(h.place_cells >= 1, "hippocampus.place_cells", "at least 1")
        need(0 < h.sparsity <= 1, "hippocampus.sparsity", "in (0, 1]")
        need(h.key_width >= 1, "hippocampus.key_width", "at least 1")
        need(h.slots >= 1, "hippocampus.slots", "at least 1")
        need(1 <= h.top_k <= h.slots, "hippocampus.top_k", f"1 to slots ({h.slots})")
        most = min(h.slots, self.plasticity_span)
        need(1 <= h.writes_per_span <= most, "hippocampus.writes_per_span", f"1 to {most} (span, slots)")
        need(h.controller in CONTROLLERS, "hippocampus.controller", "one of " + ", ".join(CONTROLLERS))
        need(h.tag or h.controller != "tagged", "hippocampus.tag", "true with brain.hippocampus.controller 'tagged'")
        need(h.contiguity >= 0, "hippocampus.contiguity", "at least 0")
        need(h.contiguity > 0 or not h.segments, "hippocampus.segments", "false without brain.hippocampus.contiguity")
        need(h.phrase >= 0, "hippocampus.phrase", "at least 0")
        need(0 <= h.key_trace < 1, "hippocampus.key_trace", "in [0, 1)")
        need(h.time_cells == 0 or h.time_cells >= 2, "hippocampus.time_cells", "0 or at least 2")
        need(h.half_life_tokens > 0, "hippocampus.half_life_tokens", "a positive number")
        need(self.procedural.rule in RULES, "procedural.rule", " or ".join(RULES))
        need(self.procedural.rank >= 1, "procedural.rank", "at least 1")
        for key in ("rate", "half_life_tokens", "max_step", "max_norm"):
            need(getattr(self.procedural, key) > 0, f"procedural.{key}", "a positive number")
        need(self.procedural.outward_half_life_tokens >= 0, "procedural.outward_half_life_tokens", "at least 0")
        simple = self.procedural.rule == "three-factor" or not self.procedural.natural
        need(simple, "procedural.natural", "false with brain.procedural.rule 'delta'")
        need(self.procedural.bias_rate >= 0, "procedural.bias_rate", "at least 0")
        need(self.procedural.bias_half_life_tokens >= 0, "procedural.bias_half_life_tokens", "at least 0")


def cautions(brain: BrainConfig) -> list[str]:
    """What is allowed but does not do what it seems to say, one sentence each."""
    found = []
    if brain.endocrine.enabled:
        for hormone, life in zip(HORMONES, brain.endocrine.half_lives_tokens, strict=True):
            if hormone not in brain.endocrine.off and life < brain.plasticity_span:
                left = 2.0 ** (-brain.plasticity_span / life)
                found.append(
                    f"config brain.endocrine.half_lives_tokens: {hormone}'s {life:g} tokens are fewer than a plasticity span "
                    f"of {brain.plasticity_span}: it moves once a span, and then {100 * left:.0f} % of its past is left."
                )
    return found


def _only_spikes(cortex: CortexConfig, fast_rank: int) -> None:
    """Refuse the parts of a cortex whose products read values that are no spikes.

    Raises:
        UsageError: naming the part and what to set.
    """
    why = "expected {} with brain.cortex.encoding 'spikes', where every product reads spikes"
    for key, part, known, wrong in (
        ("mixers", "recurrence", cortex.mixers, "a window multiplies queries by keys"),
        ("feedforwards", "spiking", cortex.feedforwards, "a dense one reads its own hidden values"),
    ):
        if set(known) != {part}:
            got = next(name for name in known if name != part)
            raise UsageError(
                f"config brain.cortex.{key}: got '{got}', {why.format(repr(part))}: {wrong}.",
                f"Set brain.cortex.{key}={','.join([part] * len(known))}, or brain.cortex.encoding=dense.",
            )
    if fast_rank:
        raise UsageError(
            f"config brain.procedural.enabled: got True, {why.format(False)}: fast weights read traces.",
            "Set brain.procedural.enabled=false, or brain.cortex.encoding=dense.",
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to learn from."""

    # A text file (.txt, .txt.gz), a folder, 'hf:NAME[/SUBSET]' for a Hugging Face dataset, or a recall task
    # 'task:NAME[:KEY=NUMBER,...][+NAME...]' (neuro/tasks.py).
    train: str = ""
    valid: str = ""  # the same; empty: the last 2 % of train, or other examples of the task
    tokenizer: str = "bpe"  # 'bpe' (byte-level, trained on train), 'words' (closed vocabulary), or a tokenizer.json


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to learn. A step is one window of ``spans_per_step`` spans on every stream, one optimizer update."""

    steps: int = 4400
    batch: int = 16  # parallel streams
    spans_per_step: int = 4  # gradient reaches back this many spans, through commit and read
    optimizer: str = "adamw"  # or "muon" for the matrices of the layers, AdamW for all else
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    sampled: int = 0  # draws from the vocabulary a step is made over, besides its own tokens; 0: the whole vocabulary
    dropout: float = 0.0  # of units, the same ones for a whole span
    embedding_dropout: float = 0.0  # of tokens, wherever they stand in a window; with `sampled`
    spelling: int = 0  # parts of words' spelling that the vocabulary's rows share while they learn; with `sampled`
    average: float = (
        0.0  # decay a step of the moving average of the weights that is evaluated and saved; 0: the weights
    )
    quantize: str = "none"  # or the export's 'int8' or 'int4': learn, evaluate and end with weights as it rounds them
    only: tuple[str, ...] = ()  # parts of parameters' dotted names (a region, 'sense'): only these learn; empty: all
    warmup_steps: int = 100
    final_share: float = 0.05  # cosine ends at this share of the learning rate
    clip_norm: float = 1.0
    rate_weight: float = 20.0  # of the firing-rate loss
    place_weight: float = 0.1  # of the place cells' budget loss, with brain.hippocampus.learned_sparsity
    route_weight: float = 2.0  # of the routing-budget loss; whole layers are held to theirs by a controller
    rehearsal: float = 0.05  # share of spans that show a stream an earlier part of itself again
    memory_dropout: float = 0.0  # share of streams that go without a memory, so that the model does not only lean on it
    spike_anneal: float = (
        0.0  # share of the steps over which what encoding neurons say turns from their membranes to spikes
    )
    init: str = ""  # a model to start from: its tokenizer, and its weights wherever name and shape agree
    accumulate: int = 1  # backward passes a step, each over batch / accumulate streams: less memory, the same gradient
    checkpoint_activations: bool = False  # run each span again in the backward pass instead of keeping all it computed
    compile: bool = False  # run the scans of training through torch.compile
    # 'ddp' or 'fsdp': the processes that torchrun started share the batch; 'fsdp' shares the optimizer's memory out, too.
    parallel: str = "none"
    mixed_precision: bool = True  # bfloat16 products where the device has them
    eval_every: int = 200  # steps; also writes a checkpoint
    eval_tokens: int = 32768  # of the validation text, at each evaluation
    seed: int = 0

    def __post_init__(self) -> None:
        def need(ok: bool, key: str, expected: str) -> None:
            _need(ok, f"train.{key}", getattr(self, key), expected)

        for key, least in (("steps", 0), ("warmup_steps", 0), ("seed", 0), ("eval_tokens", 2)):
            need(getattr(self, key) >= least, key, f"at least {least}")
        need(self.seed < 2**63, "seed", "below 2^63")  # what every generator takes
        for key in ("batch", "spans_per_step", "eval_every"):
            need(getattr(self, key) >= 1, key, "at least 1")
        divides = self.accumulate >= 1 and self.batch % self.accumulate == 0
        need(divides, "accumulate", f"a divisor of train.batch {self.batch}")
        need(self.parallel in PARALLEL, "parallel", " or ".join(PARALLEL))
        need(not (self.compile and self.parallel == "fsdp"), "compile", "false with train.parallel 'fsdp'")
        for key in ("learning_rate", "clip_norm"):
            need(0 < getattr(self, key) < math.inf, key, "a positive number")
        for key in ("weight_decay", "rate_weight", "place_weight", "route_weight"):
            need(0 <= getattr(self, key) < math.inf, key, "at least 0")
        need(self.optimizer in OPTIMIZERS, "optimizer", " or ".join(OPTIMIZERS))
        need(self.quantize in GRIDS, "quantize", " or ".join(GRIDS))
        need(self.sampled >= 0, "sampled", "at least 0")
        for key in ("dropout", "embedding_dropout", "average"):
            need(0 <= getattr(self, key) < 1, key, "in [0, 1)")
        need(not self.embedding_dropout or self.sampled > 0, "embedding_dropout", "0 where train.sampled is 0")
        need(self.spelling >= 0, "spelling", "at least 0")
        whole_rows = not self.spelling or (self.sampled > 0 and self.quantize == "none")
        need(whole_rows, "spelling", "0 where train.sampled is 0 or train.quantize rounds")
        whole = self.accumulate == 1 and self.parallel == "none"  # the batch goes through the brain at once
        plain = whole and not self.compile and not self.checkpoint_activations
        need(not self.sampled or plain, "sampled", "0 with accumulate, checkpoint_activations, compile or parallel")
        need(not self.dropout or plain, "dropout", "0 with accumulate, checkpoint_activations, compile or parallel")
        if self.parallel == "fsdp":  # a process has shares of matrices and of moments
            need(self.optimizer == "adamw", "optimizer", "adamw with train.parallel=fsdp")
            need(not self.average, "average", "0 with train.parallel=fsdp")
            need(not self.only, "only", "nothing with train.parallel=fsdp")
            need(self.quantize == "none", "quantize", "none with train.parallel=fsdp")
        for key in ("final_share", "rehearsal", "memory_dropout", "spike_anneal"):
            need(0 <= getattr(self, key) <= 1, key, "in [0, 1]")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A training run: the brain, the data, the training."""

    brain: BrainConfig = BrainConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
