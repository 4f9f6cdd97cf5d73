"""A model in this process that is asked in words: it plays users, or judges, and is never trained.

Invariant: an answer is a function of key, messages and the weights on the disk. The engine is that of agents, so
that many conversations are in flight at once and none of them changes another's words.

The weights are loaded on first use and held once for everybody in this process who names the same model: they never
change, so there is nothing to keep apart. They are never those of an agent, which training changes: a frozen copy of an
agent is its model loaded a second time, and takes that memory a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..core.errors import StatesetError
from ..engines.base import SamplingParams
from ..engines.chat_model import ChatFailed
from .config import AgentConfig
from .runtime import LazyRuntime
from .session import TokenSession

if TYPE_CHECKING:
    from .multi_turn import MultiTurnAgent

_held: WeakValueDictionary[tuple[object, ...], LazyRuntime] = WeakValueDictionary()


class LocalChat:
    """A `ChatModel` over a model in this process.

    Args:
        model_name: as an agent's: a Hugging Face name or folder, `tiny`, `smollm2-135m-instruct`, or `stub://...`.
        dtype, device, trust_remote_code: as in `AgentConfig`.
        weights: folder to load instead of `model_name`.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        model_name: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
        weights: str | None = None,
    ) -> None:
        self._config = AgentConfig(model_name, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        key = (model_name, dtype, device, trust_remote_code, weights)
        self._runtime = _held.setdefault(key, LazyRuntime(weights))

    @classmethod
    def frozen(cls, agent: MultiTurnAgent) -> LocalChat:
        """A copy of an agent as it is on the disk, whatever becomes of the agent.

        That is the model that its config names, or the checkpoint that it was loaded from: not what it has learned
        since.
        """
        config = agent.config
        return cls(
            config.model_name,
            dtype=config.dtype,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
            weights=agent.loads_from,
        )

    def check(self) -> None:
        """Check before a run that the model exists and fits, without loading it.

        Raises:
            ModelError: it does not.
        """
        from ..models import preflight

        config = self._config
        preflight(
            self._runtime.weights or config.model_name,
            training=False,
            dtype=config.dtype,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
        )

    async def initialize(self) -> None:
        """Load the model. Optional: the first answer does it.

        Raises:
            ModelError: it does not exist, does not fit, or has no chat template.
        """
        await self._runtime.get(self._config)

    async def complete(
        self, messages: Sequence[Mapping[str, str]], *, key: str, temperature: float, max_tokens: int
    ) -> str:
        """See `ChatModel.complete`.

        Raises:
            ChatFailed: the messages do not fit into the model's context, or the engine broke.
            ModelError: see `initialize`.
        """
        runtime = await self._runtime.get(self._config)
        params = SamplingParams(temperature, max_tokens, stop_ids=tuple(runtime.codec.stop_ids))
        try:
            turn = await TokenSession(key, keep=False).reply(runtime, messages, params)
        except StatesetError as error:
            raise ChatFailed(f"{self._config.model_name}: {error}") from error
        if turn.span is None:
            tokens, limit = turn.metadata["prompt_tokens"], turn.metadata["max_context"]
            raise ChatFailed(f"{self._config.model_name}: the messages have {tokens} tokens, its context is {limit}")
        return turn.content

    def describe(self) -> dict[str, Any]:
        """See `ChatModel.describe`."""
        return {"kind": "local", "model": self._config.model_name, "repeatable": True}

    async def aclose(self) -> None:
        """Stop the engine and let the weights go, for everybody who names this model. The next use loads them again."""
        await self._runtime.aclose()
