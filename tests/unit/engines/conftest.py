"""Engines over the tiny model and over small random models of other families, and the stock model to compare with."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from stateset_agents.engines.base import Generation, GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import LoadedModel, load_model, load_tokenizer

VOCABULARY = 97
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


class Kit:
    """What the tests of the engine share."""

    @staticmethod
    def ids(tokens: int, seed: object = 0, vocabulary: int = 512) -> tuple[int, ...]:
        """Some token ids."""
        rng = random.Random(f"{tokens} {seed}")
        return tuple(rng.randrange(vocabulary) for _ in range(tokens))

    @staticmethod
    def tiny(dtype: str = "float32") -> LoadedModel:
        """A tiny model of one's own."""
        return load_model("tiny", dtype=dtype, device="cpu")

    @staticmethod
    def small(family: str, config: str, **changes: Any) -> LoadedModel:
        """A small random model of another family, with wide weights so that a mistake shows."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            settings = getattr(transformers, config)(**{**SMALL, **changes})
            model = getattr(transformers, family)(settings)
        return LoadedModel.of(family, model, load_tokenizer("tiny"), {})

    @staticmethod
    @asynccontextmanager
    async def engine(loaded: LoadedModel | str = "float32", **options: Any) -> AsyncIterator[LocalEngine]:
        """An engine that is closed at the end."""
        engine = LocalEngine(Kit.tiny(loaded) if isinstance(loaded, str) else loaded, **options)
        try:
            yield engine
        finally:
            await engine.aclose()

    @staticmethod
    async def together(engine: LocalEngine, requests: Iterable[GenerationRequest]) -> list[Generation]:
        """Replies to requests that are made at once: all are there before the worker sees the first."""
        with engine._wake:
            tasks = [asyncio.ensure_future(engine.generate(request)) for request in requests]
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    @staticmethod
    async def alone(loaded: LoadedModel, requests: Iterable[GenerationRequest]) -> list[Generation]:
        """Replies one after the other, each from an engine that has seen nothing else."""
        replies = []
        for request in requests:
            async with Kit.engine(loaded) as engine:
                replies.append(await engine.generate(request))
        return replies

    @staticmethod
    def said(replies: Iterable[Generation]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Ids and log-probs, to be compared with `==`."""
        return [(reply.ids, reply.logprobs) for reply in replies]

    @staticmethod
    def stock(loaded: LoadedModel) -> Callable[[Sequence[int]], Tensor]:
        """The model's own logits of a whole row, by eager attention: (tokens, vocabulary)."""
        model = copy.deepcopy(loaded.model)
        model.set_attn_implementation("eager")

        def logits(ids: Sequence[int]) -> Tensor:
            with torch.no_grad():
                return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()

        return logits

    @staticmethod
    def passes(loaded: LoadedModel) -> list[int]:
        """A list to which the width of each forward pass of the model is appended from now on."""
        widths: list[int] = []
        loaded.model.base_model.register_forward_pre_hook(
            lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        return widths

    @staticmethod
    async def talk(
        ask: Callable[[GenerationRequest], Any],
        *,
        name: str = "talk",
        opening: int = 30,
        turns: Sequence[tuple[int, int]],
        session: bool = True,
        params: dict[str, Any] | None = None,
    ) -> list[Generation]:
        """A conversation. `turns` holds `(reply tokens, tokens that the user answers)`; `ask` gets each request."""
        row = list(Kit.ids(opening, name))
        spans: list[tuple[int, int]] = []
        replies: list[Generation] = []
        for number, (tokens, answer) in enumerate(turns):
            request = GenerationRequest(
                f"{name}#{number}",
                tuple(row),
                SamplingParams(max_new_tokens=tokens, **(params or {})),
                tuple(spans),
                session=name if session else None,
            )
            reply = await ask(request)
            replies.append(reply)
            spans.append((len(row), len(row) + len(reply.ids)))
            row += [*reply.ids, *Kit.ids(answer, f"{name} {number}")]
        return replies


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
