"""Row 9. Replies sampled under top-p, top-k or a repetition penalty, and log-probs of the whole distribution."""

import pytest

TRUNCATION = {"top_p": 0.5, "top_k": 5, "repetition_penalty": 1.5}


async def test_what_truncates_evaluation_and_serving_does_not_reach_a_run(kit):
    """Through the trainer. The learner knows the whole distribution only.

    Mutation: training_sampling not switched on in training/playing.py, or not heeded in agents/multi_turn.py: fails
    with other tokens.
    """
    talks, rows = [], []
    for truncation in ({}, TRUNCATION):
        agent = await kit.agent(**truncation)
        reward = kit.Vowels()
        trainer = await kit.trainer(agent, reward, steps=2)
        await trainer.run()
        await agent.aclose()
        talks.append(sorted(tuple(span.ids) for span in reward.spans))
        rows.append([row["mismatch_max"] for row in trainer.rows])
    assert talks[0] == talks[1]
    assert rows[0] == rows[1]
    assert max(rows[0]) < 1e-4


async def test_training_samples_at_temperature_only(kit):
    """Mutation: training_sampling not heeded in agents/multi_turn.py: fails at top_p."""
    engine = kit.Scripted(kit.tokens("H <|im_end|>"))
    agent = kit.scripted(engine, temperature=0.9, **TRUNCATION)
    await agent.fork("a").process_turn([], "A")
    agent.training_sampling = True
    await agent.fork("b").process_turn([], "A")
    cut, whole = (request.params for request in engine.requests)
    assert (cut.top_p, cut.top_k, cut.repetition_penalty) == (0.5, 5, 1.5)
    assert (whole.top_p, whole.top_k, whole.repetition_penalty, whole.temperature) == (1.0, 0, 1.0, 0.9)


@pytest.mark.parametrize("cut", [{name: value} for name, value in TRUNCATION.items()], ids=list(TRUNCATION))
async def test_replies_that_are_truncated_all_the_same_have_other_tokens(kit, cut):
    """The control: each of the three changes what this model says, so that the first test could see it.

    Mutation: _truncate or _penalise left out in engines/sampling.py: fails with the same text.
    """
    said = []
    for settings in ({}, cut):
        agent = await kit.agent(max_new_tokens=24, **settings)
        said.append(await agent.fork("k").generate_response([{"role": "user", "content": "Hello"}]))
        await agent.aclose()
    assert said[0] != said[1]
