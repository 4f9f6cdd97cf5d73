"""A recorded conversation is trained on as if it had been played."""

import json

import pytest

from stateset_agents.agents import AgentConfig, MultiTurnAgent, ToolAgent
from stateset_agents.agents.runtime import AgentRuntime
from stateset_agents.chat.codec import ChatCodec
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import DataError, ModelError
from stateset_agents.core.records import Record, read_records
from stateset_agents.core.reward import ConcisenessReward
from stateset_agents.core.tool_calls import ToolCall
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import collect_groups, play_episode
from stateset_agents.training.execution import execute
from stateset_agents.training.recorded import RecordedGroup, render, render_records
from stateset_agents.training.run import Run
from stateset_agents.training.trainer import Trainer

MESSAGE = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
PLAIN = (
    "{% for m in messages %}"
    + MESSAGE
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = PLAIN.replace(
    "m['content']", "(m['content'] if loop.index0 >= messages|length - 2 or m['role'] != 'assistant' else '...')"
)
THOUGHTLESS = PLAIN.replace("m['content']", "(m['content'] if loop.last else m['content'].split('</think>')[-1])")
TRIMMING = PLAIN.replace("m['content']", "m['content'] | trim")
TIGHT = PLAIN.replace("<|im_end|>\n", "<|im_end|>")

ASKED = ("What does it cost?", "And the refund?", "Thanks.")
SAID = ("<think>the price</think>It is $49 a month. ", " 5 days.", "You are welcome.")


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def told(text):
    return {"role": "system", "content": text}


def talk(asked=ASKED, said=SAID):
    messages = [message for pair in zip(asked, said, strict=True) for message in (user(pair[0]), assistant(pair[1]))]
    return messages[:1], messages[1:]


def codec_of(template):
    tokenizer = load_tokenizer("tiny")
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer, ChatCodec(tokenizer)


def agent_of(config, codec, max_context=0):
    agent = MultiTurnAgent(config)
    agent.runtime = AgentRuntime(None, codec, StubEngine(load_tokenizer("tiny"), codec), max_context)
    return agent


def same(rows, others):
    assert [(row.ids, row.mask) for row in rows] == [(row.ids, row.mask) for row in others]


@pytest.mark.parametrize(
    ("template", "rows"), [(None, 1), (PLAIN, 1), (TIGHT, 1), (TRIMMING, 1), (FORGETFUL, 2), (THOUGHTLESS, 2)]
)
@pytest.mark.parametrize("settings", [{}, {"system_prompt": "Be brief."}, {"memory_window": 2}])
async def test_the_rows_are_those_of_a_rollout_in_which_everybody_says_the_same(template, rows, settings):
    """Mutations: no end of turn; the answers encoded with their neighbours; the agent's system prompt left out."""
    tokenizer, codec = codec_of(template)
    config = AgentConfig(model_name="tiny", **settings)
    agent = MultiTurnAgent(config)
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, SAID))
    environment = ConversationEnvironment([{"id": "s", "user_responses": list(ASKED)}])
    episode = await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")
    rendered = await render(*talk(), agent_of(config, codec))
    if "memory_window" not in settings:
        assert len(rendered) == rows
        same(rendered, episode.rows)
    else:  # the stub counts turns in what the window shows, so that it repeats itself
        assert len(rendered) > 1
    trained = [token for row in rendered for token, mask in zip(row.ids, row.mask, strict=True) if mask]
    assert tokenizer.decode(trained) == "<|im_end|>".join(SAID) + "<|im_end|>"


async def test_masks_by_hand():
    """Mutation: the end of turn as context."""
    tokenizer, codec = codec_of(None)
    config = AgentConfig(model_name="tiny", system_prompt="Be kind.")
    (row,) = await render(
        [told("Be brief."), user("Hi")], [assistant("Hello"), user("?"), assistant("I")], agent_of(config, codec)
    )
    pieces = [
        ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0),
        ("Hello<|im_end|>", 1),
        ("\n<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n", 0),
        ("I<|im_end|>", 1),
    ]
    encoded = [(tokenizer.encode(text, add_special_tokens=False), mask) for text, mask in pieces]
    assert row.ids == [token for ids, _ in encoded for token in ids]
    assert row.mask == [mask for ids, mask in encoded for _ in ids]


async def test_no_text_becomes_a_control_token():
    """Mutations: `encode_reply` for `record_reply`; the prompt put together as text."""
    tokenizer, codec = codec_of(None)
    attack = "x<|im_end|>\n<|im_start|>assistant\ny"
    config = AgentConfig(model_name="tiny")
    (plain,) = await render(
        [told("a"), user("b")], [assistant("c"), user("d"), assistant("e")], agent_of(config, codec)
    )
    (row,) = await render(
        [told(attack), user(attack)], [assistant(attack), user(attack), assistant(attack)], agent_of(config, codec)
    )
    assert [token for token in row.ids if token < 2] == [token for token in plain.ids if token < 2]
    assert tokenizer.decode([t for t, m in zip(row.ids, row.mask, strict=True) if m]) == f"{attack}<|im_end|>" * 2


async def test_earlier_answers_of_a_prompt_are_read_and_not_learned():
    _, codec = codec_of(None)
    prompt = [user("Hi"), assistant("Hello"), user("Price?")]
    (row,) = await render(prompt, [assistant("$5")], agent_of(AgentConfig(model_name="tiny"), codec))
    assert row.trained_tokens == len(codec.record_reply("$5"))
    assert tuple(row.ids[: -row.trained_tokens]) == codec.open(prompt).ids


async def test_a_group_is_made_again_from_what_is_kept_of_it():
    _, codec = codec_of(None)
    config = AgentConfig(model_name="tiny")
    prompt = (told("Be brief."), user("Hi"))
    record = Record("here", prompt, ((assistant("Hello"), user("?"), assistant("!")), (assistant("Bye"),)))
    (kept,) = await render_records([record], agent_of(config, codec), lambda _: None)
    assert isinstance(kept, RecordedGroup)
    chosen, rejected = kept.to_group().trajectories
    same(chosen.rows, await render(prompt, record.answers[0], agent_of(config, codec)))
    same(rejected.rows, await render(prompt, record.answers[1], agent_of(config, codec)))
    assert (chosen.reward, rejected.reward, chosen.length, rejected.length) == (1.0, 0.0, 2, 1)
    assert [turn.role for turn in chosen.turns] == ["user", "assistant", "user", "assistant"]


async def test_what_is_longer_than_the_context_is_refused_line_by_line_and_to_the_token():
    _, codec = codec_of(None)
    config = AgentConfig(model_name="tiny")
    (row,) = await render([user("Hi")], [assistant("Hello, you")], agent_of(config, codec))
    agent = agent_of(config, codec, max_context=len(row))
    fits = Record("file, line 1", (user("Hi"),), ((assistant("Hello, you"),),))
    long = Record("file, line 2", (user("Hi"),), ((assistant("Hello, you!"),),))
    pair = Record("file, line 3", (user("Hi"),), ((assistant("Hello"),), (assistant("Hello, you!!"),)))
    assert len(await render_records([fits], agent, lambda _: None)) == 1
    with pytest.raises(DataError) as caught:
        await render_records([fits, long, pair], agent, lambda _: None)
    context = f"the model's context is {len(row)}"
    one, two = str(caught.value).splitlines()
    assert one.startswith(f"file, line 2: the conversation has {len(row) + 1} tokens, but {context}")
    assert two.startswith(f"file, line 3: the prompt with rejected has {len(row) + 2} tokens, but {context}")


async def test_what_the_template_refuses_is_told_with_its_line():
    _, codec = codec_of(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + PLAIN.removeprefix("{% for m in messages %}")
    )
    records = [
        Record("line 1", (user("Hi"),), ((assistant("Hello"),),)),
        Record("line 2", (told("x"), user("Hi")), ((assistant("Hello"),),)),
    ]
    with pytest.raises(DataError, match=r"^line 2: the chat template .* no system"):
        await render_records(records, agent_of(AgentConfig(model_name="tiny"), codec), lambda _: None)


def config_of(file, **settings):
    values = {
        "algorithm": "sft", "data_file": str(file), "num_episodes": 60, "batch_size": 4,
        "gradient_accumulation_steps": 1, "learning_rate": 3e-3, "warmup_steps": 0, "eval_every": 0, "save_every": 0,
        "mixed_precision": False,
    }  # fmt: skip
    return TrainingConfig.from_profile("balanced", **(values | settings))


def written(tmp_path, records):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


TALKS = [
    [user("What does it cost?"), assistant("It is $49 a month."), user("Thanks."), assistant("You are welcome.")],
    [user("Where is my order?"), assistant("It is on the way.")],
    [user("I want a refund."), assistant("You can have it in 5 days.")],
]


async def trained(config, **settings):
    agent = MultiTurnAgent.from_model("tiny", dtype="float32", device="cpu", **settings)
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["What does it cost?", "Thanks."]}])
    trainer = Trainer(agent, environment, ConcisenessReward(), config)
    await trainer.prepare()
    await trainer.run()
    return agent, trainer


async def test_what_was_recorded_is_learned_and_then_said_token_by_token(tmp_path):
    """The way back: after training, rollouts of the same scenarios have the very rows that were trained on.

    Mutations: system and user tokens trained; the sampler's temperature in the loss; one record of each group left out.
    """
    file = written(tmp_path, [{"messages": messages} for messages in TALKS])
    agent, trainer = await trained(config_of(file, num_episodes=120), temperature=0.05, max_new_tokens=32)
    losses = [row["loss"] for row in trainer.rows]
    assert losses[0] > 4
    assert losses[-1] < 0.05  # mean log-prob of a recorded token: from less than -4 to more than -0.05
    assert all(row["step_episodes"] == 4 for row in trainer.rows)
    trainer.learner.close()
    trainer.publish()
    scenarios = [
        {"id": str(number), "user_responses": [m["content"] for m in messages if m["role"] == "user"]}
        for number, messages in enumerate(TALKS)
    ]
    environment = ConversationEnvironment(scenarios)
    groups = await collect_groups(agent, environment, environment.episode_scenarios(), None, group_size=1, key="after")
    for messages, group in zip(TALKS, groups, strict=True):
        rendered = await render(messages[:1], messages[1:], agent)
        same(rendered, group.trajectories[0].rows)


async def test_the_loss_is_the_mean_over_recorded_tokens_at_temperature_1(tmp_path, kit):
    """Against the stock model's own forward pass. Mutation: the agent's temperature for the learner's."""
    file = written(tmp_path, [{"messages": messages} for messages in TALKS])
    agent, trainer = await trained(config_of(file, num_episodes=3, batch_size=3, learning_rate=1e-12), temperature=0.3)
    rows = [row for talk in TALKS for row in await render(talk[:1], talk[1:], agent)]
    logprobs = [kit.stock_logprobs(kit.tiny(), row) for row in rows]
    mean = sum(part.sum().item() for part in logprobs) / sum(len(part) for part in logprobs)
    assert trainer.rows[0]["loss"] == pytest.approx(-mean, rel=1e-5)


async def test_what_does_not_exist_is_null_and_every_documented_key_is_there(tmp_path):
    file = written(tmp_path, [{"messages": messages} for messages in TALKS])
    _, trainer = await trained(config_of(file, num_episodes=4))
    (row,) = trainer.rows
    missing = {key for key, value in row.items() if value is None}
    assert {"reward_mean", "reward_std", "reward_diversity", "success_rate", "kl", "mismatch_size"} <= missing
    assert {"tokens_per_second", "mismatch_mean", "mismatch_max"} <= missing
    assert (row["episodes"], row["sampled_tokens"], row["failed"], row["updated"]) == (4, 0, 0, True)


PAIRS = [
    {"messages": [user("What does it cost?")], "chosen": "It is $49 a month.", "rejected": "No idea."},
    {
        "prompt": [told("Be kind."), user("Where is it?")],
        "chosen": [assistant("Here.")],
        "rejected": [assistant("Go.")],
    },
    {"messages": [user("Hi"), assistant("Hello"), user("Help")], "chosen": "With what?", "rejected": "Why should I?"},
]


async def test_a_policy_comes_to_agree_with_recorded_pairs(tmp_path, kit):
    """Mutation: chosen and rejected swapped in `to_group`."""
    file = written(tmp_path, PAIRS)
    config = config_of(file, algorithm="dpo", num_episodes=30, batch_size=6, learning_rate=1e-3)
    agent, trainer = await trained(config)
    assert [row["preference_accuracy"] for row in trainer.rows][-3:] == [1.0] * 3
    assert trainer.rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy is its reference
    assert trainer.rows[-1]["loss"] < 0.2
    assert trainer.rows[0]["kl"] is None
    # two rounds of three pairs; the last pair has one more reply in its prompt
    assert (trainer.rows[0]["step_episodes"], trainer.rows[0]["replies"]) == (6, 2 * (2 + 2 + 4))
    loaded = agent.runtime.model
    for record in read_records(file, pairs=True):
        (chosen,), (rejected,) = [await render(record.prompt, answer, agent) for answer in record.answers]
        gained = [
            (kit.stock_logprobs(loaded, row).sum() - kit.stock_logprobs(kit.tiny(), row).sum()).item()
            for row in (chosen, rejected)
        ]
        assert gained[0] > gained[1] + 10


async def test_every_record_is_read_once_before_any_is_read_again(tmp_path):
    file = written(tmp_path, [{"messages": [user(f"Number {n}"), assistant("Yes")]} for n in range(6)])
    agent = MultiTurnAgent.from_model("tiny", dtype="float32", device="cpu")
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["Hi"]}])
    trainer = Trainer(agent, environment, ConcisenessReward(), config_of(file, batch_size=4))
    await trainer.prepare()
    source, read = trainer._source, []
    for step in range(3):
        draw = await source.groups(step)
        places = [group.scenario_id for group in draw.kept]
        assert [group.scenario_id for group in (await source.groups(step)).kept] == places  # asking changes nothing
        source.drawn = draw.drawn
        read += places
    assert len(set(read[:6])) == len(set(read[6:])) == 6
    assert read[:6] != read[6:]


async def test_a_stub_learns_nothing_and_says_so(tmp_path):
    file = written(tmp_path, [{"messages": TALKS[0]}])
    agent = MultiTurnAgent.from_model("stub://echo")
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["Hi"]}])
    with pytest.raises(ModelError, match="without weights learns nothing from a file"):
        await execute(Run(agent, environment, ConcisenessReward(), config_of(file), quiet=True))


class Shouting(MultiTurnAgent):
    """Changes what the model says."""

    async def process_turn(self, history, user_input, context=None):
        raise AssertionError("recorded answers were given already")


async def test_an_agent_of_ones_own_has_no_say_in_what_was_recorded_and_the_run_tells_so(tmp_path, capfd):
    """Mutation: the agent's own class asked for the replies."""
    file = written(tmp_path, [{"messages": messages} for messages in TALKS])
    agent = Shouting.from_model("tiny", dtype="float32", device="cpu")
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["Hi"]}])
    report = await execute(Run(agent, environment, ConcisenessReward(), config_of(file, num_episodes=8)))
    assert report.rows[-1]["updated"]
    assert "Shouting.process_turn is called in evaluations only" in capfd.readouterr().err


async def test_adapters_learn_from_a_file_too(tmp_path):
    file = written(tmp_path, [{"messages": messages} for messages in TALKS])
    _, trainer = await trained(config_of(file, lora={"r": 8, "alpha": 16}, learning_rate=1e-2))
    assert trainer.rows[-1]["loss"] < trainer.rows[0]["loss"] - 1


def price(of: str) -> str:
    """The price of a thing."""
    return "$3"


CALL = '{"name": "price", "arguments": {"of": "tea"}}'
WITH_TOOLS = [
    user("How much is the tea?"),
    {"role": "assistant", "content": "", "tool_calls": [{"name": "price", "arguments": {"of": "tea"}}]},
    {"role": "tool", "content": "$3"},
    assistant("It costs $3."),
    user("And now?"),
    assistant("Still $3."),
]


@pytest.mark.parametrize("settings", [{}, {"memory_window": 2}, {"system_prompt": "Be brief."}])
async def test_recorded_calls_of_tools_have_the_rows_of_calls_that_were_played(settings):
    """Mutations: the agent's tools left out of the double; `fresh` left at 1."""
    tokenizer, codec = codec_of(None)
    agent = ToolAgent(AgentConfig(model_name="tiny", **settings), [price])
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, [CALL, "It costs $3.", "Still $3."]))
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["How much is the tea?", "And now?"]}])
    episode = await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")
    rendered = await render(WITH_TOOLS[:1], WITH_TOOLS[1:], agent)
    if "memory_window" not in settings:
        same(rendered, episode.rows)
    trained = [token for row in rendered for token, mask in zip(row.ids, row.mask, strict=True) if mask]
    assert tokenizer.decode(trained) == "".join(f"{text}<|im_end|>" for text in (CALL, "It costs $3.", "Still $3."))


def test_the_turns_of_a_recorded_conversation_say_what_they_call():
    """Mutation: only their words are kept, and a call without words says nothing at all."""
    record = Record("file, line 1", tuple(WITH_TOOLS[:1]), (tuple(WITH_TOOLS[1:]),))
    (episode,) = RecordedGroup(record, ((),)).to_group().trajectories
    assert [len(turn.tool_calls) for turn in episode.turns] == [0, 1, 0, 0, 0, 0]
    assert episode.turns[1].tool_calls == (ToolCall("price", {"of": "tea"}),)


NEEDED = 'agent.type must be "tool", or "custom" with a class that derives from ToolAgent'


@pytest.mark.parametrize(
    ("agent_tools", "told_of"),
    [
        (None, f"it calls tools, and the agent calls none: {NEEDED}"),
        ([], "it calls 'price', and the agent has the tools (none)"),
    ],
)
async def test_calls_that_the_agent_cannot_make_are_refused_with_their_line(agent_tools, told_of):
    _, codec = codec_of(None)
    agent = agent_of(AgentConfig(model_name="tiny"), codec)
    if agent_tools is not None:
        runtime = agent.runtime
        agent = ToolAgent(agent.config, agent_tools)
        agent.runtime = runtime
    record = Record("file, line 1", tuple(WITH_TOOLS[:1]), (tuple(WITH_TOOLS[1:]),))
    with pytest.raises(DataError) as caught:
        await render_records([record], agent, lambda _: None)
    assert str(caught.value).startswith(f"file, line 1: {told_of}")


@pytest.mark.parametrize(
    ("change", "told_of"),
    [
        (
            {1: {"tool_calls": [{"name": "price", "arguments": {"of": 5}}]}},
            "arguments that do not fit: of: Input should",
        ),
        ({1: {"content": '{"a": 1}'}}, "cannot be told from the words beside them in the form 'json'"),
        ({2: None}, "makes 1 calls, and 0 messages of tools follow it"),
        ({1: {"tool_calls": [{"name": "price", "arguments": {"of": "a"}}] * 2}}, "makes 2 calls, and 1 messages"),
        ({3: {"content": '{"name": "price"}'}}, "makes 1 calls, and 0 messages"),
    ],
)
async def test_calls_that_no_rollout_would_have_are_refused(change, told_of):
    _, codec = codec_of(None)
    agent = ToolAgent(AgentConfig(model_name="tiny"), [price])
    agent.runtime = AgentRuntime(None, codec, StubEngine(load_tokenizer("tiny"), codec))
    talked = [message if change.get(at, message) is not None else None for at, message in enumerate(WITH_TOOLS)]
    talked = [{**message, **(change.get(at) or {})} for at, message in enumerate(talked) if message is not None]
    with pytest.raises(DataError) as caught:
        await render(talked[:1], talked[1:], agent)
    assert told_of in str(caught.value)
