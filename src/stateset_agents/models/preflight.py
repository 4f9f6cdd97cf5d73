"""Will this model fit? Asked before a byte of weights is read or downloaded.

Invariant: a model that cannot fit ends in one message that says what it needs, what there is and what would fit; the
documented default model gets that message without a network too. The estimate is a rough one, from below: it counts
weights, optimizer states, key-value cache and what a step of training holds, and a fixed sum for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..core.errors import ModelError
from .facts import KNOWN, NOT_DRIVEN, ModelFacts
from .loaded import LoadedModel
from .memory import GIB, Memory, memory_of, size
from .names import EMBEDDED, TINY, is_stub
from .sources import find_source

FLOAT32_ON_CPU_LIMIT = 1_500_000_000
"""With `dtype="auto"` on a CPU, models of up to this many parameters are loaded in float32, larger ones as stored."""

_FULL_STATE_BYTES = 16  # float32 master, gradient and the two Adam moments, for each trained parameter
_COMPUTE_COPY_BYTES = 2  # bf16 copy beside the masters
_LORA_WIDTHS_PER_LAYER = 18  # in + out widths of all linear layers of one block, in units of the hidden size
_PROCESS_BYTES = GIB
CONTEXT_TOKENS = 16 * 1024
"""Tokens of all conversations in flight, as far as they are counted in advance."""

_NAMED_WITH = "--model-name, agent.model_name or GRPO_DEFAULT_MODEL"
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes that a step of training takes beside weights and optimizer states.

    Attributes:
        copies: more copies of the weights: a frozen reference, one that is laid out for the CPU, and the like.
        cache: key-value cache of the conversations in flight.
        activations: what one pass keeps for the gradient, its logits included. The cache is gone by then.
        conversations: those of the step, as token ids and log-probs.
    """

    copies: int
    cache: int
    activations: int
    conversations: int

    @property
    def total(self) -> int:
        """The most that is there at once."""
        return self.copies + max(self.cache, self.activations) + self.conversations


StepSize = Callable[[ModelFacts, Memory], StepMemory]
"""What a step takes, of a model and in a place."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that a run with one model takes, by what takes them.

    Attributes:
        weights: the weights as the forward pass uses them.
        training: what training adds: masters, gradients and optimizer states of the trained parameters.
        cache: key-value cache of all conversations in flight; 0 where a step is counted, which has its own.
        step: what a step of training holds.
        process: interpreter, libraries and what else there is; a fixed sum.
    """

    weights: int
    training: int
    cache: int
    step: int = 0
    process: int = _PROCESS_BYTES

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.training + self.cache + self.step + self.process

    def __str__(self) -> str:
        parts = [f"weights {size(self.weights)}"]
        if self.training:
            parts.append(f"training states {size(self.training)}")
        if self.step:
            parts.append(f"a step {size(self.step)}")
        parts.append(f"{'cache and ' if self.cache else ''}the rest {size(self.cache + self.process)}")
        return f"{size(self.total)} ({', '.join(parts)})"


def preflight(
    name: str,
    *,
    training: bool,
    lora_r: int | None = None,
    bits: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
    context_tokens: int = CONTEXT_TOKENS,
    step: StepSize | None = None,
    memory: Memory | None = None,
    trust_remote_code: bool = False,
    loaded: LoadedModel | None = None,
) -> MemoryEstimate | None:
    """Compare what a model needs with what the engine can do and the machine has.

    Args:
        name: any model name.
        training: whether it will be trained, and not only run.
        lora_r: rank of the adapters if only those are trained; None means all weights.
        bits: 4 or 8 if the weights under adapters are rounded before they are put there.
        dtype: as in `load_model`.
        device: as in `load_model`.
        context_tokens: tokens of all conversations that are in flight at once, where no step says it.
        step: what a step of training takes.
        memory: what there is; measured if None.
        trust_remote_code: as in `load_model`.
        loaded: the model where it is loaded already; its weights are then no part of what is free.

    Returns:
        The estimate; None for `stub://...`, which needs nothing.

    Raises:
        ModelError: it does not fit, the engine cannot drive it, or there is no such model.
    """
    if is_stub(name):
        return None
    if loaded is not None:
        facts, memory = _as_it_is(loaded)
    else:
        facts = KNOWN.get(name) or find_source(name, trust_remote_code=trust_remote_code).facts
        memory = memory or memory_of(device)

    def of(some: ModelFacts, rank: int | None, kind: str, one: StepSize | None) -> MemoryEstimate:
        return estimate(
            some,
            training=training,
            lora_r=rank,
            bits=bits,
            dtype=kind,
            memory=memory,
            context_tokens=context_tokens,
            step=one,
        )

    needed = of(facts, lora_r, dtype, step)
    if needed.total > memory.free:
        alone = of(facts, lora_r, dtype, None)
        if alone.total <= memory.free:
            raise ModelError(_step_does_not_fit(name, needed, memory))
        lora = of(facts, 16, dtype, None) if training and lora_r is None else None
        others = {other: of(KNOWN[other], lora_r, "auto", None) for other in (EMBEDDED, TINY) if other != name}
        raise ModelError(_does_not_fit(name, facts, alone, memory, training=training, lora=lora, others=others))
    if facts.model_type in NOT_DRIVEN:
        raise ModelError(f"{name} {_not_driven(facts)} Name another model with {_NAMED_WITH}.")
    return needed


def _as_it_is(loaded: LoadedModel) -> tuple[ModelFacts, Memory]:
    """A loaded model, and what its place had free before it and the libraries were loaded."""
    parameters = list(loaded.model.parameters())
    facts = ModelFacts.of(loaded.model.config.to_dict(), sum(one.numel() for one in parameters), "")
    memory = memory_of(str(loaded.device))
    held = sum(one.numel() * one.element_size() for one in parameters) + _PROCESS_BYTES
    return facts, replace(memory, free=memory.free + held)


def cache_budget(loaded: LoadedModel) -> int:
    """Tokens whose keys and values may be kept: a quarter of the free memory, and at least what `preflight` counts."""
    memory = memory_of(str(loaded.device))
    facts = ModelFacts.of(loaded.model.config.to_dict(), 0, "")
    bytes_per_token = max(1, facts.kv_elements_per_token * _DTYPE_BYTES["float32"])
    return max(CONTEXT_TOKENS, memory.free // 4 // bytes_per_token)


def estimate(
    facts: ModelFacts,
    *,
    training: bool,
    lora_r: int | None,
    dtype: str,
    memory: Memory,
    context_tokens: int,
    step: StepSize | None = None,
    bits: int | None = None,
) -> MemoryEstimate:
    """Bytes needed; see `preflight` for the arguments."""
    per_weight = _DTYPE_BYTES.get(choose_dtype(dtype, facts, on_gpu=memory.place != "RAM"), 2)
    weights, states = facts.parameters * (bits or 8 * per_weight) // 8, 0
    if training and lora_r is not None:
        states = lora_r * _LORA_WIDTHS_PER_LAYER * facts.hidden * facts.layers * _FULL_STATE_BYTES
    elif training:
        weights, states = facts.parameters * _COMPUTE_COPY_BYTES, facts.parameters * _FULL_STATE_BYTES
    if step is not None:
        return MemoryEstimate(weights, states, 0, step(facts, memory).total)
    return MemoryEstimate(weights, states, facts.kv_elements_per_token * per_weight * context_tokens)


def choose_dtype(dtype: str, facts: ModelFacts, *, on_gpu: bool) -> str:
    """What `dtype` means for this model: "auto" is float32 for small models on a CPU, otherwise as stored.

    Raises:
        ModelError: `dtype` is none of the known ones.
    """
    if dtype == "auto":
        if not on_gpu and facts.parameters <= FLOAT32_ON_CPU_LIMIT:
            return "float32"
        return facts.dtype if facts.dtype in _DTYPE_BYTES else "bfloat16"
    if dtype not in _DTYPE_BYTES:
        raise ModelError(f'dtype is "{dtype}"; allowed: auto, {", ".join(_DTYPE_BYTES)}')
    return dtype


def _step_does_not_fit(name: str, needed: MemoryEstimate, memory: Memory) -> str:
    return (
        f"{name} fits here, but one step of training does not: it needs about {needed}; this machine has {memory}. "
        "Lower batch_size, gradient_accumulation_steps, max_new_tokens or, where there is one, max_concurrent, or set "
        "gradient_checkpointing: true."
    )


def _does_not_fit(
    name: str,
    facts: ModelFacts,
    needed: MemoryEstimate,
    memory: Memory,
    *,
    training: bool,
    lora: MemoryEstimate | None,
    others: Mapping[str, MemoryEstimate],
) -> str:
    """The message; `lora` is what adapters would need where all weights were to be trained."""
    full = "training all its weights" if lora is not None else "training it with LoRA"
    lines = [
        f"{name} ({_count(facts.parameters)} parameters) does not fit here: {full if training else 'running it'} needs "
        f"about {needed}; this machine has {memory}."
    ]
    if lora is not None:
        verdict = "fits" if lora.total <= memory.free else "does not fit either"
        lines.append(f"With LoRA it needs about {size(lora.total)}, which {verdict}.")
    fitting = [other for other, small in others.items() if small.total <= memory.free]
    lines.append(f"What would fit: {', '.join([*fitting, 'stub://echo (no weights, nothing is trained)'])}.")
    if facts.model_type in NOT_DRIVEN:
        lines.append(f"On a larger machine it would be refused too: it {_not_driven(facts)}")
    lines.append(f"Name another model with {_NAMED_WITH}.")
    return " ".join(lines)


def _not_driven(facts: ModelFacts) -> str:
    return f"is a {facts.model_type} model, whose {NOT_DRIVEN[facts.model_type]} the engine does not compute."


def _count(parameters: int) -> str:
    if parameters >= 10**9:
        return f"{parameters / 1e9:.0f} B" if parameters >= 10**10 else f"{parameters / 1e9:.1f} B"
    return f"{parameters / 1e6:.0f} M" if parameters >= 10**6 else f"{parameters}"
