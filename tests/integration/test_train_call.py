"""`train(...)`, in every form in which the documents call it."""

import asyncio
import json
import math
import random
import re
import signal
import traceback
import uuid

import pytest
import torch
import yaml

from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.core.agent import AgentConfig, load_agent_from_checkpoint
from stateset_agents.core.environment import Environment, EnvironmentState, EpisodeStatus
from stateset_agents.core.errors import ConfigError, RunFolderError, TrainingStopped
from stateset_agents.core.reward import (
    CompositeReward,
    RepetitionPenalty,
    RewardFunction,
    RewardResult,
    RewardType,
    SafetyReward,
    reward_function,
)
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.rewards import MultiObjectiveReward
from stateset_agents.tracking.performance import CLOCKED
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.diagnostics import DiagnosticsMonitor
from stateset_agents.training.giving_up import Lookout
from stateset_agents.training.train import train as train_of_its_module

SMALL = {
    "num_generations": 2,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "mixed_precision": False,
    "eval_every": 0,
}
SCENARIOS = [
    {"id": "price", "user_responses": ["What does it cost?", "Thanks."]},
    {"user_responses": ["Hi!", "How are you?", "Thanks!"]},
]


async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


class VowelReward(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(score=await vowels(turns), breakdown={"vowels": 1.0}, metadata={"turns": len(turns)})


@reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE)
async def immediate_vowels(turns, context=None):
    return await vowels(turns)


@reward_function(weight=0.5)
def plain_vowels(turns):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return text.count("e") / (len(text) + 1)


def tiny(cls=MultiTurnAgent, **settings) -> MultiTurnAgent:
    return cls(AgentConfig(model_name="tiny", temperature=1.0, max_new_tokens=6, **settings))


def environment(**more) -> ConversationEnvironment:
    return ConversationEnvironment(scenarios=SCENARIOS, **more)


def weights(agent: MultiTurnAgent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.runtime.model.model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], agent: MultiTurnAgent) -> bool:
    return any(not tensor.equal(before[name]) for name, tensor in weights(agent).items())


def a_reward_as(form: str):
    return {
        "function": vowels,
        "class": VowelReward,
        "object": VowelReward(weight=0.5),
        "decorated": immediate_vowels,
        "decorated without await": plain_vowels,
        "list": [VowelReward(weight=0.7), immediate_vowels],
        "composite": CompositeReward([VowelReward(weight=0.4), SafetyReward(weight=0.3), plain_vowels]),
    }[form]


REWARD_FORMS = ["function", "class", "object", "decorated", "decorated without await", "list", "composite"]


@pytest.mark.parametrize("form", REWARD_FORMS)
async def test_whatever_can_be_a_reward_trains(form):
    agent = tiny()
    await agent.initialize()
    before = weights(agent)
    trained = await train(
        agent, environment(), reward_fn=a_reward_as(form), num_episodes=4, config_overrides=SMALL, quiet=True
    )
    assert trained is agent
    assert moved(before, agent)


@pytest.mark.parametrize("form", [5, "helpfulness", lambda: 1.0, {"type": "safety"}, []])
async def test_what_is_no_reward_is_refused_before_anything_is_loaded(form):
    agent = tiny()
    with pytest.raises(ConfigError):
        await train(agent, environment(), reward_fn=form, quiet=True)
    assert not agent.initialized


async def test_positional_and_keyword_forms_of_the_documents(capsys):
    agent, env = tiny(), environment()
    assert train is train_of_its_module
    one = {"config_overrides": SMALL | {"num_episodes": 4}}
    for profile in ("conservative", "balanced", "aggressive", "experimental"):
        await train(agent, env, profile=profile, **one)
    await train(agent=agent, environment=env, num_episodes=4, profile="balanced", config_overrides=SMALL)
    await train(agent, env, 4, "balanced", config_overrides=SMALL)
    assert capsys.readouterr().out.count("GRPO Agent Framework - Training Complete") == 6
    response = await agent.generate_response([{"role": "user", "content": "Hello!"}])
    assert isinstance(response, str)
    assert await agent.generate_response(messages=[{"role": "user", "content": "Hello!"}])


async def test_an_agent_made_from_a_model_name_needs_no_initialize():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=6)
    assert not agent.initialized
    env = ConversationEnvironment(scenarios=[{"user_responses": ["Hi!", "How are you?", "Thanks!"]}])
    trained = await train(agent, env, num_episodes=2, config_overrides=SMALL, quiet=True)
    assert isinstance(await trained.generate_response([{"role": "user", "content": "Hello!"}]), str)


async def test_the_documented_overrides_are_accepted_and_unknown_ones_refused_with_a_suggestion(capsys):
    overrides = {"learning_rate": 1e-5, "num_generations": 4, "max_grad_norm": 0.5, "early_stopping": True}
    small = {"batch_size": 4, "gradient_accumulation_steps": 1, "eval_samples": 1, "mixed_precision": False}
    await train(tiny(), environment(), num_episodes=4, config_overrides=overrides | {"patience": 30} | small)
    assert "Early stopping waits 3 evaluations" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r'(?s)learning_rat .*did you mean "learning_rate"'):
        await train(tiny(), environment(), config_overrides={"learning_rat": 1e-5})
    with pytest.raises(ConfigError, match=r"(?s)num_generations is 1.*group of one"):
        await train(tiny(), environment(), config_overrides={"num_generations": 1})
    with pytest.raises(ConfigError, match='profile is "fast"'):
        await train(tiny(), environment(), profile="fast")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"callbacks": DiagnosticsMonitor()}, r"callbacks is <.*>; it must be a list, for example callbacks=\[Diag"),
        ({"callbacks": "monitor"}, "callbacks is 'monitor'; it must be a list"),
        ({"config_overrides": [1]}, r"config_overrides is \[1\]; it must be a dict of hyperparameters by name"),
        ({"config_overrides": "seed"}, "config_overrides is 'seed'; it must be a dict"),
        ({"config_overrides": {1: 2}}, "config_overrides has the key 1; its keys must be names of hyperparameters"),
    ],
)
async def test_an_argument_of_the_wrong_kind_is_refused_with_what_it_must_be(arguments, words):
    with pytest.raises(ConfigError, match=words):
        await train(tiny(), environment(), reward_fn=vowels, quiet=True, **arguments)


@pytest.mark.parametrize(
    ("name", "argument", "override"),
    [
        ("num_episodes", 8, 16),
        ("num_episodes", 8, 8),
        ("profile", "balanced", "aggressive"),
        ("auto_adjust", False, True),
    ],
)
async def test_what_is_given_as_an_argument_and_in_config_overrides_is_refused(name, argument, override):
    words = f"{name} is {argument!r} as an argument and {override!r} in config_overrides: give it once"
    with pytest.raises(ConfigError, match=re.escape(words)):
        await train(tiny(), environment(), config_overrides={name: override}, quiet=True, **{name: argument})


async def test_auto_adjust_in_a_healthy_run_moves_nothing_and_is_not_said_to_have_no_effect(capsys):
    await train(
        agent=tiny(),
        environment=environment(),
        reward_fn=vowels,
        num_episodes=4,
        profile="balanced",
        auto_adjust=True,
        config_overrides=SMALL,
    )
    printed = capsys.readouterr()
    assert "no effect" not in printed.err
    assert "adjusted" not in printed.err + printed.out


async def test_without_a_reward_the_default_is_used_and_announced(capsys):
    await train(tiny(), environment(), num_episodes=4, config_overrides=SMALL)
    err = capsys.readouterr().err
    assert "no reward was given: using the default, 0.5 helpfulness" in err
    await train(tiny(), environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL)
    assert "no reward was given" not in capsys.readouterr().err


async def test_what_a_run_amounts_to_and_what_has_no_effect_is_said_at_its_start(capsys):
    await train(
        tiny(top_p=0.9, top_k=50),
        environment(persona="You are a user."),
        num_episodes=5,
        reward_fn=vowels,
        config_overrides=SMALL | {"multi_gpu": True},
    )
    lines = capsys.readouterr().err.splitlines()
    for expected in (
        "2 steps of 4 conversations (2 scenarios x 2), 2 scenarios in all",
        "8 episodes will be held: num_episodes = 5, rounded up to 2 whole steps of 4.",
        "Training samples at temperature 1.0 only; top_p 0.9, top_k 50 apply to generate_response and evaluation.",
        "multi_gpu has no effect: this version trains on one device",
        "persona has no effect: a scripted user says its lines as they are written; a simulated user would use it",
    ):
        assert expected in lines


async def test_what_evaluations_cost_is_said_before_they_are_paid_for(capsys):
    settings = SMALL | {"eval_every": 4, "eval_samples": 3}
    await train(tiny(), environment(), num_episodes=8, reward_fn=vowels, config_overrides=settings)
    expected = "2 evaluations of 6 conversations (2 training scenarios x 3); eval_every: 0 leaves them out"
    assert expected in capsys.readouterr().err.splitlines()
    settings["eval_every"] = 100
    await train(tiny(), environment(), num_episodes=4, reward_fn=vowels, config_overrides=settings)
    assert "evaluations of" not in capsys.readouterr().err


async def test_quiet_prints_nothing(capsys):
    await train(tiny(), environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL, quiet=True)
    assert capsys.readouterr() == ("", "")


async def test_the_closing_report_has_the_documented_shape(tmp_path, capsys):
    path = tmp_path / "my_trained_agent"
    await train(tiny(), environment(), num_episodes=40, config_overrides=SMALL, save_path=path)
    out = capsys.readouterr().out
    assert re.match(
        r"GRPO Agent Framework - Training Complete\n"
        r"={38}\n"
        r"Episodes: 40\n"
        r"Final Reward: \d\.\d{3} ± \d\.\d{3}\n"
        r"Success Rate: \d+\.\d%\n"
        r"Average Episode Length: 2\.5 turns\n"
        r"\n"
        r"Training Health: (HEALTHY|WARNING)\n"
        r"- Reward diversity: \d\.\d{3} \((good|low)\)\n"
        r"- Gradient stability: \d\.\d{3} \((stable|unstable)\)\n"
        r"(- .+\n)+"
        r"\n"
        rf"Agent saved to: {re.escape(str(path))}\n",
        out,
    ), out


class Watcher(Callback):
    def __init__(self):
        self.seen = []

    def on_run_start(self, total_steps, start_step):
        self.seen.append(("start", total_steps, start_step))

    def on_step_end(self, metrics):
        self.seen.append(("step", metrics["step"], math.isfinite(metrics["reward_mean"])))

    def on_evaluation(self, step, result):
        self.seen.append(("evaluation", step, len(result.groups)))

    def on_run_end(self, metrics):
        self.seen.append(("end", len(metrics)))


async def test_callbacks_watch_a_run_and_the_monitor_tells_its_health():
    watcher, monitor = Watcher(), DiagnosticsMonitor()
    assert monitor.get_health_status().status == "UNKNOWN"
    overrides = SMALL | {"eval_every": 8, "eval_samples": 1}
    await train(
        tiny(),
        environment(),
        num_episodes=12,
        reward_fn=vowels,
        callbacks=[watcher, monitor],
        config_overrides=overrides,
        quiet=True,
    )
    assert watcher.seen == [
        ("start", 3, 0),
        ("step", 1, True),
        ("evaluation", 2, 2),
        ("step", 2, True),
        ("step", 3, True),
        ("end", 3),
    ]
    health = monitor.get_health_status()
    assert f"Training health: {health.status}" in ("Training health: HEALTHY", "Training health: WARNING")
    assert health.gradient_stability is not None


@pytest.mark.parametrize("callback", [print, DiagnosticsMonitor, object()])
async def test_what_is_no_callback_is_refused(callback):
    with pytest.raises(ConfigError, match=r"callbacks\[0\] is .*; it must be an instance of a subclass of Callback"):
        await train(tiny(), environment(), reward_fn=vowels, callbacks=[callback], quiet=True)


async def test_an_error_of_a_callback_ends_the_run():
    class Broken(Callback):
        def on_step_end(self, metrics):
            raise LookupError("my own fault")

    with pytest.raises(LookupError, match="my own fault"):
        await train(
            tiny(),
            environment(),
            num_episodes=4,
            reward_fn=vowels,
            callbacks=[Broken()],
            config_overrides=SMALL,
            quiet=True,
        )


class CustomAgent(MultiTurnAgent):
    """As the usage guide has it."""

    def __init__(self, model_name):
        config = AgentConfig(model_name=model_name, system_prompt="Custom system prompt...", temperature=0.7)
        super().__init__(config)
        self.custom_state = {}

    async def process_turn(self, history, user_input, context=None):
        self.custom_state["turn_count"] = self.custom_state.get("turn_count", 0) + 1
        turn = await super().process_turn(history, user_input, context)
        turn.metadata["custom_state"] = self.custom_state.copy()
        return turn


async def test_an_override_of_process_turn_is_what_training_calls_with_a_state_of_its_own_for_each_episode(tmp_path):
    agent = CustomAgent("tiny")
    agent.config.max_new_tokens = 6
    await train(
        agent,
        environment(),
        num_episodes=4,
        reward_fn=vowels,
        config_overrides=SMALL,
        output_dir=tmp_path / "run",
        quiet=True,
    )
    lines = (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()
    counts = [
        [
            turn["metadata"]["custom_state"]["turn_count"]
            for turn in json.loads(line)["turns"]
            if turn["role"] == "assistant"
        ]
        for line in lines
    ]
    assert sorted(counts) == [[1, 2], [1, 2], [1, 2, 3], [1, 2, 3]]
    assert agent.custom_state == {}


async def test_an_agent_that_writes_every_reply_itself_cannot_be_trained_and_the_message_says_why():
    class Parrot(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            await super().process_turn(history, user_input, context)
            return ConversationTurn("assistant", user_input)

    with pytest.raises(TrainingStopped, match=r"(?s)nothing can be trained: .*process_turn returns a text of its own"):
        await train(tiny(Parrot), environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL, quiet=True)


class CustomEnvironment(Environment):
    """As the usage guide has it, with its missing method."""

    async def reset(self, scenario=None):
        return EnvironmentState(
            episode_id=str(uuid.uuid4()),
            turn_count=0,
            status=EpisodeStatus.ONGOING,
            context={"custom_data": scenario},
        )

    async def step(self, state, action):
        new_state = state.copy()
        new_state.turn_count += 1
        response = ConversationTurn(role="user", content="Custom response based on action")
        reward = self.calculate_custom_reward(action)
        done = new_state.turn_count >= self.max_turns
        return new_state, response, reward, done

    async def get_initial_prompt(self, scenario=None):
        return "Custom initial prompt"

    def calculate_custom_reward(self, action):
        return len(set(action.content)) / 100


class SimulatedEnvironment(Environment):
    """As the overview has it: no `super().__init__()`, and nothing but `step`."""

    def __init__(self, simulator):
        self.simulator = simulator

    async def step(self, state, action):
        return self.simulator(state, action)


@pytest.mark.parametrize("kind", ["custom", "simulated"])
async def test_environments_of_the_documents_train(kind):
    def simulator(state, action):
        after = state.copy()
        after.turn_count += 1
        return after, ConversationTurn("user", "And then?"), len(set(action.content)) / 50, after.turn_count >= 3

    env = CustomEnvironment() if kind == "custom" else SimulatedEnvironment(simulator)
    monitor = DiagnosticsMonitor()
    agent = tiny()
    await agent.initialize()
    before = weights(agent)
    await train(agent, env, num_episodes=4, reward_fn=vowels, callbacks=[monitor], config_overrides=SMALL, quiet=True)
    (row,) = monitor.rows
    assert moved(before, agent)
    assert row["length_mean"] == (10 if kind == "custom" else 3)
    assert row["failed"] == 0
    assert row["reward_max"] > 0.2  # step rewards are added to the reward's score


async def test_what_save_path_holds_loads_with_transformers_and_as_an_agent_with_equal_logits(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tmp_path / "deep" / "my_agent"
    agent = CustomAgent("tiny")
    agent.config.max_new_tokens = 6
    await train(
        agent, environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL, save_path=path, quiet=True
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = torch.tensor([tokenizer("What does the plan cost?").input_ids])
    loaded = await load_agent_from_checkpoint(str(path), agent_class=CustomAgent)
    assert type(loaded) is CustomAgent
    assert loaded.config.system_prompt == "Custom system prompt..."
    with torch.no_grad():
        expected = agent.runtime.model.model(ids).logits
        assert AutoModelForCausalLM.from_pretrained(path)(ids).logits.equal(expected)
        assert loaded.runtime.model.model(ids).logits.equal(expected)
        fresh = MultiTurnAgent.from_model("tiny")
        await fresh.initialize()
        assert not fresh.runtime.model.model(ids).logits.equal(expected)
    plain = await load_agent_from_checkpoint(path)
    assert type(plain) is MultiTurnAgent


@pytest.mark.parametrize("lora", [False, True])
async def test_a_run_folder_and_its_final_model_load_as_the_agent_does_after_training(tmp_path, lora):
    from transformers import AutoModelForCausalLM

    agent = tiny()
    await train(
        agent,
        environment(),
        num_episodes=8,
        reward_fn=vowels,
        config_overrides=SMALL | {"lora": lora},
        output_dir=tmp_path / "run",
        quiet=True,
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    for place in ("run", "run/checkpoints/step-2", "run/final_model"):
        loaded = await load_agent_from_checkpoint(tmp_path / place, agent_class=MultiTurnAgent)
        with torch.no_grad():
            logits = loaded.runtime.model.model(ids).logits
            assert logits.allclose(agent.runtime.model.model(ids).logits, atol=1e-5)
    with torch.no_grad():
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final_model")(ids).logits.equal(logits)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("there", "there exists already; it is never overwritten"),
        ("file/below", r"file/below cannot be written \(Not a directory\)"),
        ("/proc/x/y", "/proc/x/y cannot be written"),
    ],
)
async def test_a_save_path_that_cannot_be_used_is_refused_before_training(tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    agent = tiny()
    with pytest.raises((ConfigError, RunFolderError), match=words):
        await train(agent, environment(), reward_fn=vowels, save_path=place, quiet=True)
    assert not agent.initialized


async def test_a_run_that_is_resumed_after_its_end_replaces_what_it_saved_and_nothing_else(tmp_path):
    """It may be killed between the last file and its exit code, and whoever resumes it asks for the same."""

    async def run(**more):
        agent = tiny()
        places = {"save_path": tmp_path / "mine", "output_dir": tmp_path / "run"}
        return await train(
            agent, environment(), 4, reward_fn=vowels, config_overrides=SMALL, quiet=True, **places, **more
        )

    trained = await run()
    again = await run(resume=True)
    saved = await load_agent_from_checkpoint(tmp_path / "mine")
    await saved.initialize()
    for agent in (again, saved):
        assert not moved(weights(trained), agent)
    (tmp_path / "mine" / "manifest.json").unlink()  # somebody else's by now
    with pytest.raises(ConfigError, match="exists already; it is never overwritten"):
        await run(resume=True)


async def test_the_same_agent_may_be_trained_again_and_evaluations_see_the_new_weights():
    agent = tiny()
    await train(agent, environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL, quiet=True)
    once = weights(agent)
    await train(agent, environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL, quiet=True)
    assert moved(once, agent)


def test_an_agent_lives_through_several_event_loops():
    agent = tiny()
    for _ in range(2):
        asyncio.run(train(agent, environment(), 4, reward_fn=vowels, config_overrides=SMALL, quiet=True))
        assert isinstance(asyncio.run(agent.generate_response([{"role": "user", "content": "Hi"}])), str)


async def test_training_a_stub_plays_scores_and_says_that_nothing_was_trained(tmp_path, capsys):
    agent = MultiTurnAgent.from_model("stub://Hello.|Goodbye.")
    await train(agent, environment(), num_episodes=4, config_overrides=SMALL, save_path=tmp_path / "stub")
    out = capsys.readouterr().out
    assert "no weights: nothing was trained" in out
    assert "Training Health: UNKNOWN" in out
    loaded = await load_agent_from_checkpoint(tmp_path / "stub")
    assert await loaded.generate_response([{"role": "user", "content": "Hi"}]) == "Hello."


@pytest.mark.parametrize("wrong", ["agent", "environment"])
async def test_agents_and_environments_of_other_kinds_are_refused(wrong):
    given = {"agent": tiny(), "environment": environment()} | {wrong: "tiny"}
    with pytest.raises(ConfigError, match=r"train\(agent.*got 'tiny'; pass an? "):
        await train(**given)


async def test_a_refusal_after_the_folder_was_made_takes_it_away_again(tmp_path):
    """Mutation: it stays, and the mended call is refused for a folder that holds a run."""
    with pytest.raises(ConfigError, match="it must be an instance of a subclass of Callback"):
        await train(tiny(), environment(), 4, callbacks=[5], output_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


async def test_an_agent_whose_class_left_out_the_beginning_is_refused_by_its_line():
    class Forgetful(MultiTurnAgent):
        def __init__(self, name):
            self.name = name

    with pytest.raises(ConfigError, match=r"Forgetful.__init__ \(test_train_call.py, line \d+\) does not call super"):
        await train(Forgetful("x"), ConversationEnvironment([{"user_responses": ["Hi"]}]), 4)


async def test_the_users_own_random_numbers_do_not_change_what_is_sampled_or_learned():
    async def run(noise: bool) -> tuple[dict[str, torch.Tensor], list[float]]:
        async def noisy(turns, context=None):
            if noise:
                random.seed(len(turns))
                torch.manual_seed(7)
                torch.rand(3), random.random()
            return await vowels(turns)

        monitor, agent = DiagnosticsMonitor(), tiny()
        await train(
            agent,
            environment(),
            8,
            reward_fn=noisy,
            callbacks=[monitor],
            config_overrides=SMALL | {"lora": True},
            quiet=True,
        )
        return weights(agent), [row["reward_mean"] for row in monitor.rows]

    torch.manual_seed(1)
    one, rewards = await run(noise=False)
    other, same = await run(noise=True)
    assert rewards == same
    assert all(one[name].equal(other[name]) for name in one)


async def test_evaluations_do_not_change_what_is_learned():
    learned = []
    for every in (0, 4):
        agent = tiny()
        await train(
            agent, environment(), 8, reward_fn=vowels, config_overrides=SMALL | {"eval_every": every}, quiet=True
        )
        learned.append(weights(agent))
    assert all(learned[0][name].equal(learned[1][name]) for name in learned[0])


def metrics_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in rows]


class Stopper(Callback):
    """Gives the run up after its second step, as Ctrl-C under `asyncio.run` does."""

    def on_step_end(self, metrics):
        if metrics["step"] == 2:
            asyncio.current_task().cancel()


async def test_a_cancelled_call_saves_and_resumes_to_the_same_bytes(tmp_path, capsys):
    def call(folder, **more):
        settings = {"num_episodes": 16, "reward_fn": VowelReward, "config_overrides": SMALL}
        return train(tiny(), environment(), output_dir=tmp_path / folder, **settings | more)

    await call("whole")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(call("run", callbacks=[Stopper()]))
    err = capsys.readouterr().err
    assert f"stopped and saved at step 2 in {tmp_path / 'run'}. To continue:" in err
    assert f"train(..., output_dir='{tmp_path / 'run'}', resume=True)" in err
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    changed = {"config_overrides": SMALL | {"learning_rate": 1e-4}}
    with pytest.raises(ConfigError, match=r"training.learning_rate is 0.0001, but the run in .* has 0.001"):
        await call("run", resume=True, **changed)
    with pytest.raises(ConfigError, match="rewards"):
        await call("run", resume=True, reward_fn=SafetyReward())
    await call("run", resume=True)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    models = [(tmp_path / name / "final_model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["agent"]["model_name"] == "tiny"
    assert written["training"]["learning_rate"] == 1e-3


async def test_a_call_cancelled_in_the_midst_of_an_update_gives_it_up_and_the_same_task_may_resume_it(
    tmp_path, monkeypatch, capsys
):
    """Mutations: a cancellation is not seen without an await; one that was caught counts for the next call too."""
    settings = {"num_episodes": 16, "reward_fn": VowelReward, "config_overrides": SMALL | {"grace_period": 0}}
    await train(tiny(), environment(), output_dir=tmp_path / "whole", quiet=True, **settings)
    look, looks = Lookout.look, []

    def cancelling(self, *arguments):
        looks.append(1)
        if len(looks) == 12:
            asyncio.current_task().cancel()
        look(self, *arguments)

    monkeypatch.setattr(Lookout, "look", cancelling)
    with pytest.raises(asyncio.CancelledError):
        await train(tiny(), environment(), output_dir=tmp_path / "run", **settings)
    err = capsys.readouterr().err
    assert len(looks) == 12
    said = r"the update of step \d is given up: it could not be made and saved within 0 s \(grace_period\)\. The resu"
    assert re.search(said, err)
    await train(tiny(), environment(), output_dir=tmp_path / "run", resume=True, quiet=True, **settings)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    models = [(tmp_path / name / "final_model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]


@pytest.fixture
def ctrl_c_is_heard():
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("quiet", [True, False])
def test_ctrl_c_under_asyncio_run_saves_and_the_error_says_how_to_continue(tmp_path, capsys, quiet):
    class CtrlC(Callback):
        def on_step_end(self, metrics):
            if metrics["step"] == 2:
                signal.raise_signal(signal.SIGINT)

    settings = {"num_episodes": 16, "reward_fn": vowels, "config_overrides": SMALL, "output_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt) as caught:
        asyncio.run(train(tiny(), environment(), callbacks=[CtrlC()], quiet=quiet, **settings))
    said = f"stopped and saved at step 2 in {tmp_path / 'run'}. To continue:"
    assert said in "".join(traceback.format_exception(caught.value))
    assert (said in capsys.readouterr().err) is not quiet
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    asyncio.run(train(tiny(), environment(), resume=True, quiet=True, **settings))
    assert len(metrics_of(tmp_path / "run")) == 4


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_a_second_ctrl_c_under_asyncio_run_ends_at_once_and_says_from_where_to_continue(tmp_path):
    class Twice(Callback):
        def on_step_end(self, metrics):
            if metrics["step"] == 3:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    settings = {"num_episodes": 16, "reward_fn": vowels, "quiet": True, "output_dir": tmp_path / "run"}
    settings["config_overrides"] = SMALL | {"save_every": 8}
    with pytest.raises(KeyboardInterrupt) as caught:
        asyncio.run(train(tiny(), environment(), callbacks=[Twice()], **settings))
    (note,) = caught.value.__notes__
    assert "stopped at once: what was not saved by then is lost. To continue from step 2:\n  train(" in note
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["message"]) == ("interrupted", "KeyboardInterrupt")
    asyncio.run(train(tiny(), environment(), resume=True, **settings))
    assert len(metrics_of(tmp_path / "run")) == 4


async def test_a_save_that_fails_while_a_call_is_cancelled_leaves_a_usable_agent_and_a_failed_run(
    tmp_path, monkeypatch
):
    from stateset_agents.training import saving

    def full(*_, **__):
        raise RunFolderError("the disk is full")

    monkeypatch.setattr(saving, "save_run_state", full)
    agent = tiny()
    settings = {"num_episodes": 16, "reward_fn": VowelReward, "quiet": True}
    half = {"config_overrides": SMALL | {"mixed_precision": True}}
    with pytest.raises(RunFolderError, match="the disk is full") as caught:
        await asyncio.ensure_future(
            train(agent, environment(), output_dir=tmp_path / "run", callbacks=[Stopper()], **settings | half)
        )
    assert any("resume=True" in note for note in caught.value.__notes__)
    assert agent.runtime.model.dtype == torch.float32
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


async def test_a_cancelled_call_without_a_folder_says_that_nothing_was_saved(capsys):
    agent = tiny()
    settings = {"num_episodes": 16, "reward_fn": VowelReward, "config_overrides": SMALL}
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(train(agent, environment(), callbacks=[Stopper()], **settings))
    assert "stopped after step 2. Without output_dir nothing was saved" in capsys.readouterr().err
    assert await agent.generate_response([{"role": "user", "content": "Hello!"}])


async def test_a_trained_agent_cannot_take_up_a_run_whose_kl_term_needs_the_first_weights(tmp_path):
    agent = tiny()
    settings = {"num_episodes": 16, "reward_fn": VowelReward, "quiet": True, "output_dir": tmp_path / "run"}
    settings["config_overrides"] = SMALL | {"beta": 0.1}
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(train(agent, environment(), callbacks=[Stopper()], **settings))
    with pytest.raises(ConfigError, match="resume with an agent that is made anew"):
        await train(agent, environment(), resume=True, **settings)
    await train(tiny(), environment(), resume=True, **settings)


async def test_an_agent_is_trained_by_one_run_at_a_time():
    agent = tiny()
    settings = {"num_episodes": 8, "reward_fn": vowels, "config_overrides": SMALL, "quiet": True}
    runs = [train(agent, environment(), **settings) for _ in range(2)]
    first, second = await asyncio.gather(*runs, return_exceptions=True)
    assert first is agent
    assert isinstance(second, ConfigError)
    assert "is being trained already" in str(second)
    await train(agent, environment(), **settings)


@pytest.mark.parametrize("end", [SystemExit(3), asyncio.CancelledError()])
async def test_a_reward_that_ends_the_program_is_a_failed_reward(end):
    async def leaves(turns, context=None):
        raise end

    with pytest.raises(TrainingStopped, match=f"failed in the reward: compute_reward: {type(end).__name__}"):
        await train(tiny(), environment(), num_episodes=4, reward_fn=leaves, config_overrides=SMALL, quiet=True)


@pytest.mark.parametrize("folder", ["", " ", 5])
@pytest.mark.parametrize("name", ["output_dir", "save_path", "resume_from"])
async def test_a_folder_that_is_none_is_refused(name, folder):
    with pytest.raises(ConfigError, match=f"{name} is .*; it must be the path of a folder"):
        await train(tiny(), environment(), reward_fn=vowels, quiet=True, **{name: folder})


async def test_time_limits_of_the_settings_reach_rewards_and_environments():
    async def slow(turns, context=None):
        await asyncio.sleep(20)
        return 1.0

    class SlowEnvironment(ConversationEnvironment):
        async def step(self, state, action):
            await asyncio.sleep(20)
            return await super().step(state, action)

    settings = {"num_episodes": 4, "quiet": True}
    for env, reward, name in (
        (environment(), slow, "reward_timeout"),
        (SlowEnvironment(scenarios=SCENARIOS), vowels, "environment_timeout"),
    ):
        with pytest.raises(TrainingStopped, match=r"took longer than 0\.2 s"):
            await train(tiny(), env, reward_fn=reward, config_overrides=SMALL | {name: 0.2}, **settings)


async def test_a_new_run_starts_from_the_weights_of_another(tmp_path):
    settings = {"num_episodes": 8, "reward_fn": VowelReward, "config_overrides": SMALL, "quiet": True}
    first = await train(tiny(), environment(), output_dir=tmp_path / "one", **settings)
    barely = {"config_overrides": SMALL | {"learning_rate": 1e-12, "weight_decay": 0.0}}
    second = await train(
        tiny(), environment(), output_dir=tmp_path / "two", resume_from=tmp_path / "one", **settings | barely
    )
    then, now = weights(first), weights(second)
    assert all(torch.allclose(then[name], now[name], atol=1e-6) for name in then)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume continues the run in output_dir: give it"),
        ({"resume": True, "resume_from": "x", "output_dir": "y"}, "give one of them"),
    ],
)
async def test_resume_without_a_run_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        await train(tiny(), environment(), reward_fn=vowels, quiet=True, **arguments)


async def test_an_override_that_training_never_calls_is_named(capsys):
    class Polite(MultiTurnAgent):
        async def generate_response(self, messages):
            return "Please: " + await super().generate_response(messages)

    class Heard(Polite):
        async def process_turn(self, history, user_input, context=None):
            return await super().process_turn(history, user_input, context)

    for kind, named in ((Polite, True), (Heard, False)):
        agent = kind(tiny().config)
        await train(agent, environment(), num_episodes=4, reward_fn=vowels, config_overrides=SMALL)
        assert (f"{kind.__name__}.generate_response has no effect" in capsys.readouterr().err) is named


async def test_each_part_of_the_reward_is_in_the_metrics_of_every_step(tmp_path):
    """Mutation: the parts are logged by evaluations alone."""
    reward = MultiObjectiveReward({"vowels": vowels, "repetition": RepetitionPenalty()}, weights={"repetition": 0.5})
    await train(
        tiny(), environment(), 8, reward_fn=reward, output_dir=tmp_path / "run", config_overrides=SMALL, quiet=True
    )
    for row in metrics_of(tmp_path / "run"):
        assert row["reward_mean"] == pytest.approx(row["reward/vowels"] + 0.5 * row["reward/repetition"])
        assert -1.0 <= row["reward/repetition"] <= 0.0
