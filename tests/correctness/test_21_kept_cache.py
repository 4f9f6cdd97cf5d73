"""Row 21. Keys and values that were computed under old weights, read under new ones."""

import torch

from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine


def said(*replies):
    return [(reply.ids, reply.logprobs) for reply in replies]


async def fresh(loaded, *requests):
    """Replies of an engine that has seen nothing else."""
    engine = LocalEngine(loaded)
    replies = [await engine.generate(request) for request in requests]
    await engine.aclose()
    return replies


def move(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(1.1)


async def test_a_kept_conversation_and_a_shared_prompt_are_read_anew_under_new_weights(kit):
    """The same prompt and the same conversation before and after an update, in one engine and in new ones.

    Mutation: no forget_all() in engines/local.py: fails with 256 tokens kept. Prompts that outlive their rows in
    engines/memory.py: fails when one is fetched.
    """
    loaded, short = kit.tiny(), SamplingParams(max_new_tokens=8)
    engine = LocalEngine(loaded)
    opening = GenerationRequest("a", tuple(kit.ids(30, 1)), short, session="kept")
    first = await engine.generate(opening)
    prompt = (*opening.prompt_ids, *first.ids, *kit.ids(9, 2))
    later = GenerationRequest("b", prompt, short, ((30, 38),), session="kept")
    assert engine.cached_tokens > 0
    move(loaded.model)
    engine.weights_changed(1)
    assert (engine.version, engine.cached_tokens) == (1, 0)
    second = await engine.generate(later)
    again = await engine.generate(opening)
    await engine.aclose()
    assert said(second, again) == said(*await fresh(loaded, later, opening))
    assert again.logprobs[0] != first.logprobs[0]
    assert (first.version, second.version) == (0, 1)
    # every token of the conversation went through the new weights
    assert second.forwarded_tokens == len(prompt) + 7


async def test_a_conversation_that_goes_on_without_an_update_is_not_read_anew(kit):
    """The control: the cache is used where it may be.

    Mutation: keep() that frees in engines/memory.py: fails with every token read again.
    """
    loaded, short = kit.tiny(), SamplingParams(max_new_tokens=8)
    engine = LocalEngine(loaded)
    opening = GenerationRequest("a", tuple(kit.ids(30, 1)), short, session="kept")
    first = await engine.generate(opening)
    prompt = (*opening.prompt_ids, *first.ids, *kit.ids(9, 2))
    second = await engine.generate(GenerationRequest("b", prompt, short, ((30, 38),), session="kept"))
    await engine.aclose()
    assert second.forwarded_tokens == 1 + 9 + 7
