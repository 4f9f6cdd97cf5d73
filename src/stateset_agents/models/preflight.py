"""Will this model fit? Asked before a byte of weights is read or downloaded.

Invariant: a model that cannot fit ends in one message that says what it needs, what there is and what would fit; the
documented default model gets that message without a network too. The estimate is a rough one, from below: it counts
weights, optimizer states and key-value cache, and a fixed sum for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class MemoryEstimate:
    """Bytes that a run with one model takes, by what takes them.

    Attributes:
        weights: the weights as the forward pass uses them.
        training: what training adds: masters, gradients and optimizer states of the trained parameters.
        cache: key-value cache of all conversations in flight.
        process: interpreter, libraries, activations; a fixed sum.
    """

    weights: int
    training: int
    cache: int
    process: int = _PROCESS_BYTES

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.training + self.cache + self.process

    def __str__(self) -> str:
        parts = [f"weights {size(self.weights)}"]
        if self.training:
            parts.append(f"training states {size(self.training)}")
        parts.append(f"cache and the rest {size(self.cache + self.process)}")
        return f"{size(self.total)} ({', '.join(parts)})"


def preflight(
    name: str,
    *,
    training: bool,
    lora_r: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
    context_tokens: int = CONTEXT_TOKENS,
    memory: Memory | None = None,
    trust_remote_code: bool = False,
) -> MemoryEstimate | None:
    """Compare what a model needs with what the engine can do and the machine has.

    Args:
        name: any model name.
        training: whether it will be trained, and not only run.
        lora_r: rank of the adapters if only those are trained; None means all weights.
        dtype: as in `load_model`.
        device: as in `load_model`.
        context_tokens: tokens of all conversations that are in flight at once.
        memory: what there is; measured if None.
        trust_remote_code: as in `load_model`.

    Returns:
        The estimate; None for `stub://...`, which needs nothing.

    Raises:
        ModelError: it does not fit, the engine cannot drive it, or there is no such model.
    """
    if is_stub(name):
        return None
    facts = KNOWN.get(name) or find_source(name, trust_remote_code=trust_remote_code).facts
    memory = memory or memory_of(device)
    needed = estimate(
        facts, training=training, lora_r=lora_r, dtype=dtype, memory=memory, context_tokens=context_tokens
    )
    if needed.total > memory.free:
        raise ModelError(_does_not_fit(name, facts, needed, memory, training, lora_r, dtype, context_tokens))
    if facts.model_type in NOT_DRIVEN:
        raise ModelError(f"{name} {_not_driven(facts)} Name another model with {_NAMED_WITH}.")
    return needed


def cache_budget(loaded: LoadedModel) -> int:
    """Tokens whose keys and values may be kept: a quarter of the free memory, and at least what `preflight` counts."""
    memory = memory_of(str(loaded.device))
    facts = ModelFacts.of(loaded.model.config.to_dict(), 0, "")
    bytes_per_token = max(1, facts.kv_elements_per_token * _DTYPE_BYTES["float32"])
    return max(CONTEXT_TOKENS, memory.free // 4 // bytes_per_token)


def estimate(
    facts: ModelFacts, *, training: bool, lora_r: int | None, dtype: str, memory: Memory, context_tokens: int
) -> MemoryEstimate:
    """Bytes needed; see `preflight` for the arguments."""
    per_weight = _DTYPE_BYTES.get(choose_dtype(dtype, facts, on_gpu=memory.place != "RAM"), 2)
    weights, states = facts.parameters * per_weight, 0
    if training and lora_r is not None:
        states = lora_r * _LORA_WIDTHS_PER_LAYER * facts.hidden * facts.layers * _FULL_STATE_BYTES
    elif training:
        weights, states = facts.parameters * _COMPUTE_COPY_BYTES, facts.parameters * _FULL_STATE_BYTES
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


def _does_not_fit(
    name: str,
    facts: ModelFacts,
    needed: MemoryEstimate,
    memory: Memory,
    training: bool,
    lora_r: int | None,
    dtype: str,
    context_tokens: int,
) -> str:
    what = "running it" if not training else "training all its weights" if lora_r is None else "training it with LoRA"
    lines = [
        f"{name} ({_count(facts.parameters)} parameters) does not fit here: {what} needs about {needed}; "
        f"this machine has {memory}."
    ]
    if training and lora_r is None:
        lora = estimate(facts, training=True, lora_r=16, dtype=dtype, memory=memory, context_tokens=context_tokens)
        verdict = "fits" if lora.total <= memory.free else "does not fit either"
        lines.append(f"With LoRA it needs about {size(lora.total)}, which {verdict}.")
    fitting = [
        other
        for other in (EMBEDDED, TINY)
        if other != name
        and estimate(
            KNOWN[other], training=training, lora_r=lora_r, dtype="auto", memory=memory, context_tokens=context_tokens
        ).total
        <= memory.free
    ]
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
