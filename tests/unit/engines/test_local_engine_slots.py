from stateset_agents.engines.base import Generation, GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import load_model

OPENING = tuple(range(10, 40))
PARAMS = SamplingParams(max_new_tokens=8)


async def replies(*requests: GenerationRequest) -> list[Generation]:
    engine = LocalEngine(load_model("tiny", dtype="float32", device="cpu"))
    try:
        return [await engine.generate(request) for request in requests]
    finally:
        await engine.aclose()


async def test_a_conversation_that_outgrows_its_kept_cache_gets_the_reply_that_it_gets_without_one():
    opening = GenerationRequest("turn 1", OPENING, PARAMS, session="talk")
    (first,) = await replies(opening)
    prompt = (*OPENING, *first.ids, *(20 + i % 200 for i in range(500)))
    spans = ((len(OPENING), len(OPENING) + len(first.ids)),)
    _, kept = await replies(opening, GenerationRequest("turn 2", prompt, PARAMS, spans, session="talk"))
    (alone,) = await replies(GenerationRequest("turn 2", prompt, PARAMS, spans))
    assert kept.forwarded_tokens < alone.forwarded_tokens
    assert (kept.ids, kept.logprobs) == (alone.ids, alone.logprobs)
