"""Row 14. An end-of-turn token that is not trained, because it was left out or taken for padding: replies never end."""

import torch

from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import StopReason
from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode
from stateset_agents.training.packing import PackedBatch, Sample

END = 1


def trained(row):
    return PackedBatch.of([Sample(row, 1.0, 1.0, 0, 0)], torch.device("cpu")).targets.tolist()


async def test_the_token_that_ended_a_reply_is_trained_and_one_that_the_template_added_is_not(kit):
    """Its id is that of the padding. The second reply was cut by length: its end comes from the template.

    Mutation: tokens with the id of the padding left out in training/packing.py, or the last token of a closed reply as
    context in agents/session.py: fails without its two ends.
    """
    tokenizer = load_tokenizer("tiny")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == END
    replies = [kit.tokens(words) for words in ("H i <|im_end|>", "y e s", "H <|im_end|>")]
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["A", "B", "C"]}])
    agent = kit.scripted(kit.Scripted(*replies))
    episode = await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")
    (row,) = episode.rows
    spans = [turn.span for turn in episode.assistant_turns]
    assert [turn.stop_reason for turn in episode.assistant_turns] == [
        StopReason.STOP,
        StopReason.LENGTH,
        StopReason.STOP,
    ]
    assert [span.ids[-1] for span in spans] == [END, *kit.tokens("s"), END]
    assert (row.ids[spans[1].end], row.mask[spans[1].end]) == (END, 0)
    assert trained(row) == [token for reply in replies for token in reply]
    assert [turn.content for turn in episode.assistant_turns] == ["Hi", "yes", "H"]


def test_a_model_that_is_rewarded_for_ending_learns_to_end(kit):
    """One conversation ends at once, the other says one word more. By the model's own forward pass.

    Mutation: tokens with the id of the padding left out in training/packing.py: fails, there is nothing to learn from.
    """
    prompt = kit.ids(8, 1)
    ends, goes_on = (kit.row((prompt, False), (reply, True)) for reply in ([END], [300]))
    loaded = kit.tiny()
    learner = kit.learner(loaded, learning_rate=1e-3)
    with torch.no_grad():
        before = kit.stock_logprobs(kit.tiny().model, ends).item()
    for _ in range(3):
        assert learner.step([kit.group((1.0, [ends]), (0.0, [goes_on]))], max_tokens=1).trained_tokens == 2
    after = learner.policy.logprobs(kit.batch(learner, [kit.group((1.0, [ends]), (0.0, [goes_on]))]))[0]
    assert after[0].item() > before + 0.5


async def test_a_stop_id_ends_the_reply_belongs_to_it_and_has_its_log_prob(kit):
    """The same reply without stop ids, cut after the first token that is one.

    Mutation: the stop id taken off in engines/local.py: fails with a token less.
    """
    prompt = tuple(kit.ids(20, 2))
    engine = LocalEngine(kit.tiny())
    whole = await engine.generate(GenerationRequest("k", prompt, SamplingParams(max_new_tokens=12)))
    stop = whole.ids[6]
    place = whole.ids.index(stop)
    params = SamplingParams(max_new_tokens=12, stop_ids=(stop,))
    cut = await engine.generate(GenerationRequest("k", prompt, params))
    await engine.aclose()
    assert whole.stop_reason is StopReason.LENGTH
    assert cut.stop_reason is StopReason.STOP
    assert cut.ids == whole.ids[: place + 1]
    assert cut.logprobs == whole.logprobs[: place + 1]


async def test_every_token_that_may_end_a_turn_reaches_the_engine(kit):
    """The template's and the tokenizer's (1), and those that the model's own config names.

    Mutation: without model_stop_ids in chat/codec.py: fails with 1 alone; without stop_ids in agents/multi_turn.py:
    fails with none.
    """
    engine = kit.Scripted(kit.tokens("H <|im_end|>"))
    agent = kit.scripted(engine)
    agent.runtime.codec = ChatCodec(load_tokenizer("tiny"), model_stop_ids=[7, 300])
    await agent.fork("k").process_turn([], "A")
    assert engine.requests[0].params.stop_ids == (1, 7, 300)
