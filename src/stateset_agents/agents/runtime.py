"""What the forks of an agent share: model, codec and engine.

Invariant: weights are loaded once for an agent and all its forks, however many of them ask at the same time, and never
for two agents together: training one agent never changes another.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from ..engines.base import Engine
from ..models.loaded import UNBOUNDED
from .config import AgentConfig

if TYPE_CHECKING:
    from ..chat.codec import ChatCodec
    from ..models import LoadedModel


@dataclass
class AgentRuntime:
    """A ready agent's machinery.

    Attributes:
        model: weights and tokenizer; None for a stub.
        codec: messages to token ids and back.
        engine: who generates.
        max_context: longest prompt and reply together, in tokens; by default the model's.
    """

    model: LoadedModel | None
    codec: ChatCodec
    engine: Engine
    max_context: int = 0

    def __post_init__(self) -> None:
        if not self.max_context:
            self.max_context = self.model.max_context if self.model is not None else UNBOUNDED


class LazyRuntime:
    """Loads an `AgentRuntime` on first use.

    Args:
        weights: folder to load instead of the config's `model_name` (a checkpoint's own weights).
    """

    def __init__(self, weights: str | None = None) -> None:
        self.weights = weights
        self._loaded: AgentRuntime | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> AgentRuntime | None:
        """The runtime, if it is loaded."""
        return self._loaded

    def set(self, runtime: AgentRuntime) -> None:
        """Use this runtime instead of loading one."""
        with self._lock:
            self._loaded = runtime

    async def get(self, config: AgentConfig) -> AgentRuntime:
        """The runtime; loads it in a thread when it is asked for first, so that the event loop goes on.

        Raises:
            ModelError: the model does not exist, does not fit, or has no chat template.
        """
        if self._loaded is None:
            await asyncio.to_thread(self._load, config)
        if self._loaded is None:
            raise ModelError("the agent was closed while its model was being loaded")
        return self._loaded

    def _load(self, config: AgentConfig) -> None:
        with self._lock:
            if self._loaded is None:
                self._loaded = load_runtime(config, self.weights)

    async def aclose(self) -> None:
        """Stop the engine and let the weights go."""
        runtime, self._loaded = self._loaded, None
        if runtime is not None:
            await runtime.engine.aclose()


def load_runtime(config: AgentConfig, weights: str | None = None) -> AgentRuntime:
    """Load model and tokenizer and start an engine over them.

    Args:
        weights: folder to load instead of `config.model_name`.

    Raises:
        ModelError: see `LazyRuntime.get`.
    """
    from ..chat.codec import ChatCodec
    from ..models import TINY, cache_budget, is_stub, load_model, load_tokenizer, preflight

    name = weights or config.model_name
    if is_stub(name):
        from ..engines.stub import StubEngine

        tokenizer: Any = load_tokenizer(TINY)  # transformers' stubs are stricter than what its tokenizers accept
        codec = ChatCodec(tokenizer)
        return AgentRuntime(None, codec, StubEngine.from_name(name, tokenizer, codec))
    from ..engines.local import LocalEngine

    trusted = config.trust_remote_code
    preflight(name, training=False, dtype=config.dtype, device=config.device, trust_remote_code=trusted)
    loaded = load_model(name, dtype=config.dtype, device=config.device, trust_remote_code=trusted)
    tokenizer = loaded.tokenizer
    codec = ChatCodec(tokenizer, model_stop_ids=loaded.stop_ids)
    return AgentRuntime(loaded, codec, LocalEngine(loaded, max_cached_tokens=cache_budget(loaded)))
