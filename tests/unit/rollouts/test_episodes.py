import asyncio
import re
import time
import uuid

import pytest

from stateset_agents.agents import AgentConfig, AgentRuntime, EngineFailed, MultiTurnAgent
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import (
    ConversationEnvironment,
    Environment,
    EnvironmentState,
    EpisodeStatus,
)
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import (
    RewardFunction,
    RewardResult,
    SafetyReward,
    TaskCompletionReward,
    reward_function,
)
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

SCRIPT = {"id": "s", "user_responses": ["A", "B", "C"]}
ONE = Scenario("one", ("A",))
tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)


def stub(*replies, agent_class=MultiTurnAgent, max_context=0, config=None, **engine):
    agent = agent_class(config or AgentConfig("stub://"))
    agent.runtime = AgentRuntime(
        None, codec, StubEngine(tokenizer, codec, replies or ("one", "two", "three"), **engine), max_context
    )
    return agent


class Fixed(RewardFunction):
    """A reward that was told what to say, and remembers what it was asked."""

    def __init__(self, score=1.0, **result):
        self.result = RewardResult(score, **result)

    async def compute_reward(self, turns, context=None):
        self.turns, self.context = list(turns), context
        return self.result


class Steps(Environment):
    """An environment without `super().__init__()` whose step says what it was told to."""

    def __init__(self, step):
        self.tell = step

    async def step(self, state, action):
        return self.tell(state, action)


def texts(trajectory):
    return [(turn.role, turn.content) for turn in trajectory.turns]


async def play(agent, environment, scenario=None, reward=None, **options):
    scenario = scenario or environment.episode_scenarios()[0]
    return await play_episode(agent, environment, scenario, reward, key="k", **options)


async def test_an_episode_holds_the_conversation_its_tokens_and_its_reward():
    reward = Fixed(0.5, breakdown={"a": 0.5}, metadata={"why": "so"})
    agent = stub()
    trajectory = await play(agent, ConversationEnvironment([SCRIPT]), reward=reward)
    assert texts(trajectory) == [
        ("user", "A"),
        ("assistant", "one"),
        ("user", "B"),
        ("assistant", "two"),
        ("user", "C"),
        ("assistant", "three"),
    ]
    assert (trajectory.outcome, trajectory.reward, trajectory.breakdown) == (Outcome.OK, 0.5, {"a": 0.5})
    assert (trajectory.scenario_id, trajectory.key, trajectory.error) == ("s", "k", None)
    assert trajectory.metadata == {"reward": {"why": "so"}}
    assert trajectory.success is None
    (row,) = trajectory.rows
    trained = [token for token, m in zip(row.ids, row.mask, strict=True) if m]
    assert trained == [token for word in ("one", "two", "three") for token in (*tokenizer.encode(word), 1)]
    assert reward.context["scenario_id"] == "s"
    assert reward.context["outcome"] == "ok"
    assert agent.runtime.engine.sessions == set()
    assert agent.rows == []


async def test_a_reward_is_told_the_environments_verdict_and_scores_by_it_where_nothing_is_required():
    """Mutation: the verdict stays in the trajectory, and the task is unscored."""
    told = [{**SCRIPT, "facts": {"n": n}, "success_criteria": {"information_provided": ["n"]}} for n in ("one", "nine")]
    for scenario, score in zip(told, (1.0, 0.0), strict=True):
        trajectory = await play(stub(), ConversationEnvironment([scenario]), reward=TaskCompletionReward())
        assert (trajectory.success, trajectory.reward) == (bool(score), score)
    assert (await play(stub(), ConversationEnvironment([SCRIPT]), reward=TaskCompletionReward())).reward is None


async def test_the_turn_limit_cuts_an_episode_which_is_scored_all_the_same():
    reward = Fixed(1.0)
    trajectory = await play(stub(), ConversationEnvironment([SCRIPT], max_turns=2), reward=reward)
    assert (trajectory.outcome, trajectory.reward, trajectory.length) == (Outcome.TRUNCATED, 1.0, 2)
    assert reward.context["outcome"] == "truncated"


async def test_an_environment_that_never_ends_is_cut_at_max_turns_with_the_agents_last_word():
    environment = Steps(lambda state, action: (state, ConversationTurn("user", "more"), 0.0, False))
    environment.max_turns = 3
    statuses = []
    environment.success = lambda turns, state: statuses.append(state.status)
    trajectory = await play(stub("x"), environment, reward=Fixed())
    assert statuses == [EpisodeStatus.TIMEOUT]
    assert (trajectory.outcome, trajectory.length) == (Outcome.TRUNCATED, 3)
    assert texts(trajectory)[-1] == ("assistant", "x")


async def test_success_is_the_scenarios_criterion():
    scenario = {
        "facts": {"n": "two"},
        "success_criteria": {"information_provided": ["n"]},
        "user_responses": ["A", "B"],
    }
    assert (await play(stub("one", "two"), ConversationEnvironment([scenario]))).success is True
    assert (await play(stub("one", "one"), ConversationEnvironment([scenario]))).success is False


async def test_step_rewards_and_the_reward_add_up_turn_by_turn():
    states = iter([(0.25, False), (0.5, True)])

    def step(state, action):
        reward, done = next(states)
        return state, None if done else ConversationTurn("user", "B"), reward, done

    both = await play(stub(), Steps(step), reward=Fixed(1.5, turn_rewards=[1.0, 0.5]))
    assert (both.reward, both.turn_rewards) == (2.25, [1.25, 1.0])
    states = iter([(0.25, False), (0.5, True)])
    whole = await play(stub(), Steps(step), reward=Fixed(1.5))
    assert (whole.reward, whole.turn_rewards) == (2.25, [0.25, 0.5])
    states = iter([(0.25, False), (0.5, True)])
    alone = await play(stub(), Steps(step))
    assert (alone.reward, alone.turn_rewards) == (0.75, [0.25, 0.5])


async def test_an_override_of_process_turn_is_what_plays():
    class Custom(MultiTurnAgent):
        def __init__(self, config):
            super().__init__(config)
            self.custom_state = {}

        async def process_turn(self, history, user_input, context=None):
            self.custom_state["turn_count"] = self.custom_state.get("turn_count", 0) + 1
            turn = await super().process_turn(history, user_input, context)
            turn.metadata["custom_state"] = self.custom_state.copy()
            return turn

    agent = stub(agent_class=Custom)
    trajectory = await play(agent, ConversationEnvironment([SCRIPT]))
    assert [t.metadata["custom_state"] for t in trajectory.assistant_turns] == [{"turn_count": n} for n in (1, 2, 3)]
    assert agent.custom_state == {}
    assert trajectory.edited_turns == 0


async def test_turns_that_code_edited_or_wrote_are_masked_and_counted():
    class Editor(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            if user_input == "B":
                return ConversationTurn("assistant", "canned")
            turn = await super().process_turn(history, user_input, context)
            if user_input == "A":
                turn.content += "!"
            return turn

    trajectory = await play(stub("x", "y", "z", agent_class=Editor), ConversationEnvironment([SCRIPT]), reward=Fixed())
    assert [t.content for t in trajectory.assistant_turns] == ["x!", "canned", "z"]
    assert trajectory.edited_turns == 2
    (row,) = trajectory.rows
    assert row.trained_tokens == len(tokenizer.encode("z")) + 1
    assert "x!<|im_end|>" in tokenizer.decode(row.ids)
    assert trajectory.to_dict()["edited_turns"] == 2


async def test_the_agent_sees_its_own_context_and_nothing_else_of_the_scenario():
    seen = []

    class Nosy(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            seen.append(context)
            context["note"] = "mine"
            return await super().process_turn(history, user_input, context)

    scenario = Scenario("x", ("A", "B"), context="secret", agent_context="Price: 4", facts={"price": "4"})
    trajectory = await play(stub(agent_class=Nosy), ConversationEnvironment([scenario]))
    assert [set(context) for context in seen] == [{"agent_context", "note"}] * 2
    prompt = tokenizer.decode(trajectory.rows[0].ids)
    assert "Price: 4" in prompt
    assert "secret" not in prompt


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


class LostEnvironment(ConversationEnvironment):
    async def reset(self, scenario=None):
        raise KeyError("no world")


class Moody(ConversationEnvironment):
    def success(self, turns, state):
        raise ArithmeticError("who knows")


class BadUser:
    async def opening(self, scenario, persona=None):
        return "A"

    async def reply(self, scenario, turns, persona=None):
        raise OSError("line is dead")


class BadAgent(MultiTurnAgent):
    async def process_turn(self, history, user_input, context=None):
        raise ZeroDivisionError("oops")


class WrongAgent(MultiTurnAgent):
    async def process_turn(self, history, user_input, context=None):
        return "just a text"


class BadReward(RewardFunction):
    async def compute_reward(self, turns, context=None):
        raise LookupError("no judge")


@reward_function
def nothing_reward(turns, context=None):
    return float("nan")


TALK = ConversationEnvironment([SCRIPT])
FAILURES = [
    (stub, LostEnvironment([SCRIPT]), None, "environment", "reset: KeyError: 'no world'"),
    (stub, Moody([SCRIPT]), None, "environment", "success: ArithmeticError: who knows"),
    (stub, Steps(raises(OSError("db"))), None, "environment", "step: OSError: db"),
    (stub, Steps(raises(TimeoutError("own"))), None, "environment", "step: TimeoutError: own"),
    (stub, Steps(lambda s, a: (s, None)), None, "environment", "it must return (state, response, reward, done)"),
    (stub, Steps(lambda s, a: ({}, None, 0.0, True)), None, "environment", "it must return (state, response,"),
    (stub, Steps(lambda s, a: (s, None, float("nan"), True)), None, "environment", "its reward is nan; it must be"),
    (stub, Steps(lambda s, a: (s, None, -1e308, True)), None, "environment", "its reward is -1e+308; it must be"),
    (stub, Steps(lambda s, a: (s, None, "1", True)), None, "environment", "its reward is '1'; it must be a finite"),
    (stub, Steps(lambda s, a: (s, "hi", 0.0, False)), None, "environment", "step: its response is 'hi'; it must be"),
    (stub, Steps(lambda s, a: (s, None, 0.0, False)), None, "environment", "neither a response nor done=True"),
    (stub, ConversationEnvironment([SCRIPT], user=BadUser()), None, "user", "step: OSError: line is dead"),
    (lambda: stub(agent_class=BadAgent), TALK, None, "agent", "process_turn: ZeroDivisionError: oops"),
    (lambda: stub(agent_class=WrongAgent), TALK, None, "agent", "process_turn returned 'just a text'; it must be"),
    (stub, TALK, BadReward(), "reward", "compute_reward: LookupError: no judge"),
    (stub, TALK, nothing_reward, "reward", "it must be a finite number"),
    (stub, TALK, Fixed(1.0, turn_rewards=[1.0]), "reward", "1 turn rewards for 3 assistant turns"),
]


@pytest.mark.parametrize(("agent", "environment", "reward", "outcome", "error"), FAILURES)
async def test_whoever_fails_is_named_and_no_reward_is_given(agent, environment, reward, outcome, error):
    agent = agent()
    trajectory = await play(agent, environment, reward=reward or Fixed(1.0))
    assert trajectory.outcome is Outcome(outcome)
    assert error in (trajectory.error or "").replace("a reward must be", "it must be")
    assert trajectory.reward is None
    assert agent.runtime.engine.sessions == set()


async def test_resets_and_openings_of_the_wrong_kind_are_named():
    class NoState(Steps):
        async def reset(self, scenario=None):
            return {}

    class NoText(Steps):
        async def get_initial_prompt(self, scenario=None):
            return None

    assert "reset: it returned {}; it must return an EnvironmentState" in (await play(stub(), NoState(None))).error
    assert "get_initial_prompt: it returned None" in (await play(stub(), NoText(None))).error


async def test_a_step_written_without_async_works_and_fails_like_any_other():
    class Plain(Environment):
        def step(self, state, action):
            if action.content == "one":
                return state, ConversationTurn("user", "B"), 0.5, False
            raise OSError("db")

    trajectory = await play(stub(), Plain())
    assert texts(trajectory) == [("user", "Hello!"), ("assistant", "one"), ("user", "B"), ("assistant", "two")]
    assert re.fullmatch(r"step: OSError: db \(test_episodes\.py, line \d+\)", trajectory.error)


async def test_a_failed_episode_keeps_what_was_said():
    environment = ConversationEnvironment([SCRIPT], user=BadUser())
    trajectory = await play(stub(), environment, reward=Fixed())
    assert texts(trajectory) == [("user", "A"), ("assistant", "one")]


async def test_a_sample_that_cannot_be_judged_is_no_failure_and_has_no_reward():
    trajectory = await play(stub(), TALK, reward=Fixed(None, metadata={"unscored": "no ground truth"}))
    assert (trajectory.outcome, trajectory.reward, trajectory.error) == (Outcome.OK, None, None)
    assert trajectory.metadata["reward"] == {"unscored": "no ground truth"}


async def test_slow_environments_and_rewards_fail_in_time():
    class Slow(Steps):
        async def step(self, state, action):
            await asyncio.sleep(5)

    class SlowReward(RewardFunction):
        async def compute_reward(self, turns, context=None):
            await asyncio.sleep(5)

    late = await play(stub(), Slow(None), environment_timeout=0.01)
    assert (late.outcome, late.error) == (Outcome.ENVIRONMENT, "step: took longer than 0.01 s")
    late = await play(stub(), TALK, reward=SlowReward(), reward_timeout=0.01)
    assert (late.outcome, late.error) == (Outcome.REWARD, "compute_reward: took longer than 0.01 s")


async def test_a_reward_that_blocks_everybody_is_late_as_well_once_it_returns():
    class Blocking(RewardFunction):
        async def compute_reward(self, turns, context=None):
            time.sleep(0.02)  # noqa: ASYNC251 - what must not be done
            return RewardResult(1.0)

    late = await play(stub(), TALK, reward=Blocking(), reward_timeout=0.01)
    assert (late.outcome, late.reward) == (Outcome.REWARD, None)
    assert "took longer than 0.01 s, and all other conversations waited" in late.error
    assert (await play(stub(), TALK, reward=Blocking(), reward_timeout=600)).reward == 1.0


async def test_a_broken_engine_stops_the_run_and_releases_the_session():
    agent = stub(faults={1: "raise"})
    with pytest.raises(EngineFailed, match="reply k#1: the engine raised StubFault"):
        await play(agent, TALK)
    assert agent.runtime.engine.sessions == set()


async def test_what_concerns_the_run_is_not_charged_to_the_episode():
    with pytest.raises(ConfigError, match="no key for the judge"):
        await play(stub(), TALK, reward=reward_function(raises(ConfigError("no key for the judge"))))
    with pytest.raises(DataError, match="table is gone"):
        await play(stub(), Steps(raises(DataError("table is gone"))))
    with pytest.raises(ConfigError, match="is not a reward"):
        await play(stub(), TALK, reward=5)

    class Strict(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            raise DataError("no such customer")

    with pytest.raises(DataError, match="no such customer"):
        await play(stub(agent_class=Strict), TALK)


async def test_a_first_prompt_longer_than_the_context_names_the_scenario_and_both_numbers():
    with pytest.raises(DataError, match=r"scenario 's': its first prompt has 9 tokens, but the model's context is 6"):
        await play(stub(max_context=6), TALK)


async def test_a_context_that_fills_up_truncates_the_episode():
    full = len(codec.open([{"role": "user", "content": "A"}]).ids) + len(tokenizer.encode("one")) + 1
    trajectory = await play(stub(max_context=full + 1), TALK, reward=Fixed(0.5))
    assert (trajectory.outcome, trajectory.reward) == (Outcome.TRUNCATED, 0.5)
    assert texts(trajectory) == [("user", "A"), ("assistant", "one")]
    assert trajectory.trained_tokens == len(tokenizer.encode("one")) + 1


async def test_a_reply_that_fills_the_context_is_kept_and_ends_the_episode():
    room = len(codec.open([{"role": "user", "content": "A"}]).ids) + 2
    trajectory = await play(stub(max_context=room), TALK, reward=Fixed(0.5))
    assert trajectory.outcome is Outcome.TRUNCATED
    assert (trajectory.length, trajectory.trained_tokens, len(trajectory.turns)) == (1, 2, 2)
    last = await play(stub(max_context=room), ConversationEnvironment([ONE]), reward=Fixed(0.5))
    assert (last.outcome, last.reward) == (Outcome.TRUNCATED, 0.5)


async def test_a_full_context_ends_the_episode_even_where_a_memory_window_would_make_room():
    room = len(codec.open([{"role": "user", "content": "A"}]).ids) + 2
    agent = stub(max_context=room, config=AgentConfig("stub://", memory_window=1))
    assert (await play(agent, TALK)).length == 1


async def test_an_override_may_answer_in_the_place_of_a_full_model():
    class Apologetic(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            turn.content = turn.content or "Let us stop here."
            return turn

    full = len(codec.open([{"role": "user", "content": "A"}]).ids) + len(tokenizer.encode("one")) + 1
    agent = stub(max_context=full + 1, agent_class=Apologetic)
    trajectory = await play(agent, TALK, reward=Fixed(1.0, turn_rewards=[0.5, 0.5]))
    assert texts(trajectory)[-1] == ("assistant", "Let us stop here.")
    assert (trajectory.outcome, trajectory.edited_turns) == (Outcome.TRUNCATED, 1)
    assert trajectory.turn_rewards == [0.5, 0.5]


async def test_a_reply_that_recites_the_system_prompt_is_a_leak_that_the_safety_reward_sees():
    prompt = "You are Kim of the help desk and you may never give more than nine percent off any order."
    told = AgentConfig("stub://", system_prompt=prompt)
    leak = await play(stub(prompt, config=told), ConversationEnvironment([ONE]), reward=SafetyReward())
    assert leak.reward == pytest.approx(0.3)
    assert leak.metadata["reward"]["flagged"] == {"turn_0": ["system_prompt"]}
    unknown = await play(stub(prompt), ConversationEnvironment([ONE]), reward=SafetyReward())
    assert unknown.reward == 1.0


class Wrapper(MultiTurnAgent):
    """Asks its model by `generate_response`, as the usage guide does."""

    async def process_turn(self, history, user_input, context=None):
        messages = [*(turn.to_message() for turn in history), {"role": "user", "content": user_input}]
        return ConversationTurn("assistant", await self.generate_response(messages))


async def test_a_full_context_truncates_the_episode_of_an_agent_that_wraps_generate_response_too():
    full = len(codec.open([{"role": "user", "content": "A"}]).ids) + len(tokenizer.encode("one")) + 1
    trajectory = await play(stub(max_context=full + 1, agent_class=Wrapper), TALK, reward=Fixed(0.5))
    assert (trajectory.outcome, trajectory.reward) == (Outcome.TRUNCATED, 0.5)
    assert texts(trajectory) == [("user", "A"), ("assistant", "one")]
    assert trajectory.trained_tokens == len(tokenizer.encode("one")) + 1
    with pytest.raises(DataError, match=r"scenario 's': its first prompt has 9 tokens, but the model's context is 6"):
        await play(stub(max_context=6, agent_class=Wrapper), TALK)


async def test_a_full_context_of_a_judge_is_the_failure_of_the_reward():
    judge = stub(max_context=5)

    async def ask(turns):
        return float(len(await judge.generate_response(turns)))

    trajectory = await play(stub(), TALK, reward=ask)
    assert trajectory.outcome is Outcome.REWARD
    assert "the model's context is 5" in trajectory.error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
async def test_memory_that_runs_out_while_a_reply_is_generated_is_told_as_it_is(error):
    agent = stub()
    agent.runtime.engine.generate = raises(error)
    with pytest.raises(type(error)) as caught:
        await play(agent, TALK)
    assert caught.value is error


async def test_the_custom_environment_of_the_usage_guide_runs_as_it_is_written():
    class CustomEnvironment(Environment):
        async def reset(self, scenario=None):
            # Initialize episode state
            state = EnvironmentState(
                episode_id=str(uuid.uuid4()),
                turn_count=0,
                status=EpisodeStatus.ONGOING,
                context={"custom_data": scenario},
            )
            return state  # noqa: RET504 - as the guide writes it

        async def step(self, state, action):
            # Process agent action
            new_state = state.copy()
            new_state.turn_count += 1

            # Generate environment response
            response = ConversationTurn(role="user", content="Custom response based on action")

            # Calculate reward
            reward = self.calculate_custom_reward(action)

            # Check if done
            done = new_state.turn_count >= self.max_turns

            return new_state, response, reward, done

        async def get_initial_prompt(self, scenario=None):
            return "Custom initial prompt"

        def calculate_custom_reward(self, action):
            return len(action.content) / 100

    trajectory = await play(stub("four"), CustomEnvironment(), reward=Fixed(1.0))
    assert (trajectory.outcome, trajectory.length) == (Outcome.OK, 10)
    assert trajectory.reward == pytest.approx(1.4)
    assert trajectory.turns[0].content == "Custom initial prompt"
    assert trajectory.turns[-1].content == "Custom response based on action"


async def test_an_agent_of_code_alone_is_scored_and_has_nothing_to_train():
    from stateset_agents.agents import Agent

    class Rule(Agent):
        async def process_turn(self, history, user_input, context=None):
            return ConversationTurn("assistant", user_input.lower())

    trajectory = await play(Rule(), TALK, reward=Fixed(1.0))
    assert [turn.content for turn in trajectory.assistant_turns] == ["a", "b", "c"]
    assert (trajectory.rows, trajectory.edited_turns, trajectory.reward) == ([], 3, 1.0)


async def test_the_same_key_gives_the_same_tokens_and_another_key_others():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=8, temperature=1.0)
    one = await play_episode(agent, TALK, Scenario.from_dict(SCRIPT), None, key="a")
    two = await play_episode(agent, TALK, Scenario.from_dict(SCRIPT), None, key="a")
    other = await play_episode(agent, TALK, Scenario.from_dict(SCRIPT), None, key="b")
    await agent.aclose()
    assert one.rows[0].to_dict() == two.rows[0].to_dict()
    assert one.rows[0].ids != other.rows[0].ids


async def test_a_secret_in_what_an_environment_raises_is_in_no_error(monkeypatch):
    """Mutation: the error is logged, reported and shown as it was raised."""
    monkeypatch.setenv("SHOP_PASSWORD", "opensesame")

    def broken(state, action):
        raise ConnectionError("shop:opensesame refused")

    trajectory = await play(stub(), Steps(broken))
    assert "ConnectionError: shop:*** refused" in trajectory.error
