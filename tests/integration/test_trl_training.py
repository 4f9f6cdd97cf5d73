"""Training with TRL: the real trainer, a tiny model, two steps; what it trains, what comes out, what is left behind."""

import asyncio
import importlib.metadata
import json
import math
import re
import time

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.core.agent import AgentConfig, load_agent_from_checkpoint
from stateset_agents.core.environment import Environment, TaskEnvironment
from stateset_agents.core.errors import ConfigError, DataError, ModelError, RunFolderError, TrainingStopped
from stateset_agents.core.reward import RewardResult, SafetyReward
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.models import has_lora
from stateset_agents.rewards.multi_objective_reward import MultiObjectiveReward
from stateset_agents.tracking.run_folder import RunFolder, read_metrics, read_trajectories
from stateset_agents.training import TRLGRPOConfig, train_customer_service_with_trl, train_with_trl_grpo

if not importlib.metadata.version("trl").startswith("1.16."):
    pytest.skip("TRL 1.16 is bridged to", allow_module_level=True)

SCENARIOS = [
    {"id": "price", "user_responses": ["What does it cost?", "Thanks."]},
    {"id": "hello", "user_responses": ["Hi!", "How are you?", "Thanks!"]},
]
SMALL = {
    "num_episodes": 16,
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "lora_r": 4,
    "max_completion_length": 6,
    "temperature": 1.0,
    "gradient_checkpointing": False,
    "save_steps": 0,
}


async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


def tiny(cls=MultiTurnAgent, **settings):
    return cls(AgentConfig(model_name="tiny", system_prompt="You are a helpful assistant.", **settings))


def environment(**more):
    return ConversationEnvironment(scenarios=SCENARIOS, **more)


def weights(agent):
    return {name: tensor.clone() for name, tensor in agent.runtime.model.model.state_dict().items()}


async def run(folder, *, agent=None, reward=vowels, train_data=None, world=None, **settings):
    config = TRLGRPOConfig(**{**SMALL, "output_dir": str(folder), **settings})
    return await train_with_trl_grpo(
        config=config,
        agent=agent or tiny(),
        environment=world or environment(),
        reward_model=reward,
        train_data=train_data,
        quiet=True,
    )


@pytest.fixture
def learned(monkeypatch):
    """Each batch that TRL computes a loss of: the step, the log-probs (with their gradient), the inputs."""
    from trl import GRPOTrainer

    batches = []
    compute, loss = GRPOTrainer._get_per_token_logps_and_entropies, GRPOTrainer._compute_loss

    def watched(self, *arguments, **named):
        found = compute(self, *arguments, **named)
        if torch.is_grad_enabled():
            found[0].retain_grad()
            batches.append([self.state.global_step, found[0]])
        return found

    def with_inputs(self, model, inputs):
        result = loss(self, model, inputs)
        batches[-1].append(inputs)
        return result

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watched)
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", with_inputs)
    return batches


def test_lora_training_moves_the_agent_and_leaves_a_plain_model_in_memory_and_on_disk(tmp_path):
    async def both():
        fresh, agent = tiny(), tiny()
        await fresh.initialize()
        await run(tmp_path / "run", agent=agent)
        return fresh, agent, await agent.generate_response(messages=[{"role": "user", "content": "Where is my order?"}])

    fresh, agent, answer = asyncio.run(both())
    loaded, base = agent.runtime.model, fresh.runtime.model.model
    model = loaded.model
    assert isinstance(answer, str)
    assert not has_lora(loaded)
    assert {"forward", "_original_forward", "peft_config"} & vars(model).keys() == set()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert model.config.use_cache == base.config.use_cache
    assert weights(agent).keys() == weights(fresh).keys()

    final = tmp_path / "run" / "final_model"
    saved = AutoModelForCausalLM.from_pretrained(final)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(saved(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
        assert (saved(ids).logits - base(ids).logits).abs().max() > 0.01
    tokenizer = AutoTokenizer.from_pretrained(final)
    assert tokenizer.chat_template == fresh.runtime.model.tokenizer.chat_template
    inputs = tokenizer("User: Where is my order?\nAssistant:", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    assert saved.generate(**inputs, max_new_tokens=4).shape[1] > inputs.input_ids.shape[1]


async def test_merging_keeps_what_the_adapters_computed(tmp_path, monkeypatch):
    """Mutation: merge without the scale, or into the wrong layers."""
    from stateset_agents.training.trl.weights import ModelUnderTraining

    ids = torch.arange(40)[None]
    seen = []
    keep = ModelUnderTraining.keep

    def with_logits(self):
        self.loaded.model.eval()
        with torch.no_grad():
            seen.append(self.loaded.model(ids).logits.clone())
        keep(self)

    monkeypatch.setattr(ModelUnderTraining, "keep", with_logits)
    agent = await run(tmp_path / "run", lora_alpha=24)
    with torch.no_grad():
        merged = agent.runtime.model.model(ids).logits
    assert torch.allclose(seen[0], merged, rtol=0, atol=5e-5)


@pytest.mark.parametrize("settings", [{"use_lora": True}, {"use_lora": False, "learning_rate": 1e-3}])
async def test_only_the_models_own_words_get_a_gradient_and_they_were_said_by_the_weights_of_that_step(
    tmp_path, learned, settings
):
    """Mutations: an env_mask of ones; no `weights_changed` before a round; log-probs of another temperature."""
    agent = await run(tmp_path / "run", **settings)
    assert sorted({step for step, *_ in learned}) == [0, 1]
    assert agent.runtime.engine.version == 2
    for _, logprobs, inputs in learned:
        spoken = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        heard = inputs["completion_mask"].bool() & ~spoken
        assert heard.any()
        assert torch.all(logprobs.grad[~spoken] == 0)
        gap = (logprobs.detach() - inputs["sampling_per_token_logps"]).abs()[spoken]
        assert gap.max() < 1e-3
        assert torch.all(inputs["sampling_per_token_logps"][heard] == 0)
    assert any(logprobs.grad.abs().max() > 1e-4 for _, logprobs, _ in learned)
    first, last = learned[0][2], learned[-1][2]
    assert not torch.equal(first["sampling_per_token_logps"], last["sampling_per_token_logps"])


async def test_the_run_folder_tells_the_run(tmp_path):
    reward = MultiObjectiveReward([vowels, SafetyReward(0.1)])
    await run(tmp_path / "run", reward=reward, save_steps=1, beta=0.05)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.status.state == "finished"
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["episodes"] for row in rows] == [8, 16]
    for row in rows:
        assert math.isfinite(row["loss"])
        assert row["grad_norm"] > 0
        assert row["learning_rate"] == pytest.approx(1e-2)
        assert row["kl"] >= 0
        assert row["updated"] is True
        assert {"reward_mean", "reward_std", "entropy", "clip_fraction", "reward/vowels", "reward/safety"} <= row.keys()
        assert row["step_episodes"] == 8
    episodes = list(read_trajectories(tmp_path / "run"))
    assert len(episodes) == 16
    assert {episode["scenario_id"] for episode in episodes} == {"price", "hello"}
    assert rows[0]["reward_mean"] == pytest.approx(
        sum(episode["reward"] for episode in episodes if episode["step"] == 1) / 8
    )
    config = yaml.safe_load(folder.config_yaml)
    assert config["trl"]["beta"] == 0.05
    (log,) = (tmp_path / "run").glob("training_*.log")
    assert re.search(r"step 2/2  loss -?\d+\.\d{4}", log.read_text())
    assert "Trained by TRL's GRPOTrainer" in (tmp_path / "run" / "report.txt").read_text()
    assert not list((tmp_path / "run").glob("**/*.bin"))
    step = await load_agent_from_checkpoint(tmp_path / "run" / "checkpoints" / "step-1")
    final = await load_agent_from_checkpoint(tmp_path / "run")
    assert step.config == final.config
    assert any(
        not torch.equal(one, other) for one, other in zip(weights(step).values(), weights(final).values(), strict=True)
    )


async def test_the_trained_agent_takes_the_configs_sampling_and_keeps_its_own_where_there_is_none(tmp_path):
    agent = await run(tmp_path / "run", agent=tiny(max_new_tokens=5, temperature=0.9, top_p=0.8), top_p=0.95)
    assert (agent.config.temperature, agent.config.top_p, agent.config.max_new_tokens) == (1.0, 0.95, 6)
    saved = json.loads((tmp_path / "run" / "final_model" / "agent.json").read_text())
    assert saved["config"]["top_p"] == 0.95


async def test_all_weights_can_be_trained_with_a_reference(tmp_path, learned):
    agent = await run(tmp_path / "run", use_lora=False, beta=0.1, learning_rate=1e-3, num_iterations=2)
    steps = sorted({step for step, *_ in learned})
    assert steps == [0, 1, 2, 3]
    first = next(inputs for step, _, inputs in learned if step == 0)
    spoken = (first["completion_mask"] * first["tool_mask"]).bool()
    gap = (first["ref_per_token_logps"] - first["sampling_per_token_logps"])[spoken]
    assert gap.abs().max() < 1e-3
    last = learned[-1][2]
    spoken = (last["completion_mask"] * last["tool_mask"]).bool()
    assert (last["ref_per_token_logps"] - last["sampling_per_token_logps"])[spoken].abs().max() > 1e-2
    assert agent.runtime.model.model.config._name_or_path == ""
    rows = read_metrics(tmp_path / "run")
    assert ["updated" in row for row in rows] == [True, False, True, False]


async def test_half_precision_weights_are_trained_in_float32(tmp_path):
    fresh, agent = tiny(dtype="bfloat16"), tiny(dtype="bfloat16")
    await fresh.initialize()
    await agent.generate_response(messages=[{"role": "user", "content": "Hi"}])
    await run(tmp_path / "run", agent=agent, use_lora=False, learning_rate=1e-5)
    after, before = weights(agent), weights(fresh)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert any(not torch.equal(tensor, before[name].float()) for name, tensor in after.items())


@pytest.mark.parametrize("use_lora", [True, False])
async def test_activations_can_be_recomputed(tmp_path, use_lora):
    agent = await run(tmp_path / "run", use_lora=use_lora, gradient_checkpointing=True, learning_rate=1e-3)
    assert not agent.runtime.model.model.is_activation_checkpointing
    assert not agent.runtime.model.model.get_input_embeddings()._forward_hooks
    assert read_metrics(tmp_path / "run")[0]["grad_norm"] > 0


async def test_our_own_trainer_takes_over_where_trl_left_off(tmp_path):
    agent = await run(tmp_path / "run")
    before = weights(agent)
    settings = {"num_generations": 4, "batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    await train(agent, environment(), num_episodes=8, reward_fn=vowels, config_overrides=settings, quiet=True)
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(agent).items())


async def test_two_runs_of_the_same_seed_say_and_learn_the_same(tmp_path):
    one = await run(tmp_path / "one")
    other = await run(tmp_path / "other")
    spoken = [
        [(episode["key"], [turn["content"] for turn in episode["turns"]]) for episode in read_trajectories(folder)]
        for folder in (tmp_path / "one", tmp_path / "other")
    ]
    assert spoken[0] == spoken[1]
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (float("nan"), "a reward must be a finite number"),
        (None, "a `return` is missing?"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (RewardResult.unscored("no truth"), "the reward has nothing to judge by: no truth"),
    ],
)
async def test_an_episode_that_the_reward_cannot_score_is_counted_named_and_never_zero(
    tmp_path, learned, caplog, result, reason
):
    """Mutation: return 0.0 for None in `given_reward`."""
    calls = 0

    async def sometimes(turns, context=None):
        nonlocal calls
        calls += 1
        if calls % 4 != 1:
            return 1.0 + await vowels(turns)
        if isinstance(result, Exception):
            raise result
        return result

    await run(tmp_path / "run", reward=sometimes)
    for row in read_metrics(tmp_path / "run"):
        assert row["failed"] + row["unscored"] == 2
        assert row["reward_min"] >= 1.0
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert warned[0].startswith("step 1: 2 conversations were not scored")
    assert reason in warned[0]
    masks = torch.cat([(inputs["tool_mask"] * inputs["completion_mask"]).sum(1) for _, _, inputs in learned])
    assert (masks == 0).sum() == 4
    advantages = torch.cat([inputs["advantages"] for *_, inputs in learned])
    assert torch.all(advantages[masks == 0] == 0)


async def test_a_first_round_that_nothing_can_be_learned_from_ends_the_run(tmp_path):
    def broken(turns, context=None):
        raise RuntimeError("no judge")

    agent = tiny()
    await agent.initialize()
    before = weights(agent)
    with pytest.raises(TrainingStopped, match="no judge"):
        await run(tmp_path / "run", agent=agent, reward=broken)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(agent).items())
    assert not has_lora(agent.runtime.model)
    status = RunFolder.open(tmp_path / "run").status
    assert (status.state, "no judge" in status.message) == ("failed", True)
    assert await agent.generate_response([{"role": "user", "content": "Hi"}]) is not None


async def test_training_data_is_played_instead_of_the_environments_scenarios(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}]}\n'
        '{"messages": [{"role": "user", "content": "Help me"}]}\n'
    )
    world = environment()
    await run(tmp_path / "run", train_data=file, world=world)
    openings = {episode["turns"][0]["content"] for episode in read_trajectories(tmp_path / "run")}
    assert openings == {"Hello", "Help me"}
    assert {len(episode["turns"]) for episode in read_trajectories(tmp_path / "run")} == {2}
    assert [scenario.id for scenario in world.scenarios] == ["price", "hello"]


class Edits(MultiTurnAgent):
    async def process_turn(self, history, user_input, context=None):
        turn = await super().process_turn(history, user_input, context)
        turn.content += "!"
        return turn


class Countdown(Environment):
    """Written without `super().__init__()`, with `step` alone."""

    max_turns = 2

    def __init__(self):
        self.openings = ["Count down."]

    async def step(self, state, action):
        after = state.copy()
        after.turn_count += 1
        return after, ConversationTurn("user", "Go on."), 0.25, after.turn_count == 2


async def test_a_custom_environment_and_its_step_rewards_are_trained_in(tmp_path):
    await run(tmp_path / "run", world=Countdown())
    episodes = list(read_trajectories(tmp_path / "run"))
    assert all(episode["reward"] >= 0.5 for episode in episodes)


async def test_an_agent_whose_every_reply_is_edited_cannot_be_trained(tmp_path):
    with pytest.raises(TrainingStopped, match="nothing can be trained"):
        await run(tmp_path / "run", agent=tiny(Edits))


async def test_rows_that_trl_cannot_train_are_told(tmp_path, caplog):
    await run(tmp_path / "run", agent=tiny(memory_window=1))
    assert "further rows of this round are not trained" in caplog.text
    assert read_metrics(tmp_path / "run")[0]["dropped_rows"] > 0


async def test_no_conversation_is_longer_than_prompt_and_completion_together(tmp_path, learned):
    agent = await run(tmp_path / "run", max_prompt_length=80, max_completion_length=20)
    assert agent.runtime.max_context == 4096
    lengths = [(i["prompt_mask"].sum(1) + i["completion_mask"].sum(1)).max().item() for *_, i in learned]
    assert max(lengths) <= 100
    rows = read_metrics(tmp_path / "run")
    assert sum(row["truncated"] for row in rows) > 0


async def test_an_opening_longer_than_the_limit_is_refused_with_its_length(tmp_path):
    with pytest.raises(DataError, match=r'"(price|hello)" has \d+, and max_prompt_length is 20'):
        await run(tmp_path / "run", max_prompt_length=20)


@pytest.mark.parametrize(
    ("settings", "agent", "error", "words"),
    [
        ({"model_name": "smollm2-135m-instruct"}, {}, ConfigError, 'the agent is made of "tiny"'),
        ({"device_map": "balanced"}, {}, ConfigError, 'device_map is "balanced"'),
        ({"device_map": "cuda"}, {}, ModelError, 'device is "cuda"'),
        ({"temperature": None}, {"temperature": 0.0}, ConfigError, "temperature is 0"),
    ],
)
async def test_what_cannot_be_done_here_is_refused_before_a_model_is_loaded(
    tmp_path, monkeypatch, settings, agent, error, words
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    untouched = tiny(**agent)
    with pytest.raises(error) as caught:
        await run(tmp_path / "run", agent=untouched, **settings)
    assert words in str(caught.value)
    assert not untouched.initialized
    assert not (tmp_path / "run").exists()


async def test_a_task_that_the_agent_has_no_tool_for_is_refused(tmp_path):
    tasks = TaskEnvironment([{"id": "t", "goal": "g", "required_actions": [{"name": "a", "tool": "refund"}]}])
    with pytest.raises(DataError, match=r"task 't': the action 'a' can never be done: there is no tool 'refund'"):
        await train_with_trl_grpo(TRLGRPOConfig(**SMALL, output_dir=str(tmp_path / "run")), tiny(), tasks, vowels)
    assert list(tmp_path.iterdir()) == []


async def test_a_model_that_does_not_fit_is_refused_with_what_would(tmp_path):
    agent = MultiTurnAgent(AgentConfig(model_name="openai/gpt-oss-120b"))
    with pytest.raises(ModelError, match=r"gpt-oss-120b .*does not fit here"):
        await run(tmp_path / "run", agent=agent)


async def test_a_step_that_does_not_fit_is_refused_before_a_model_is_loaded(tmp_path):
    """Mutation: the weights alone are counted."""
    untouched = tiny()
    with pytest.raises(ModelError, match=r"tiny fits here, but one step of training does not: .*a step .*Lower batch"):
        await run(tmp_path / "run", agent=untouched, batch_size=10**9)
    assert not untouched.initialized
    assert not (tmp_path / "run").exists()


async def test_a_stub_has_nothing_to_train(tmp_path):
    with pytest.raises(ModelError, match="has no weights"):
        await run(tmp_path / "run", agent=MultiTurnAgent(AgentConfig(model_name="stub://echo")))


async def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        await run(tmp_path / "run")


@pytest.mark.parametrize("argument", ["config", "agent", "environment"])
async def test_arguments_of_another_kind_are_refused(argument):
    arguments = {"config": TRLGRPOConfig(), "agent": tiny(), "environment": environment(), "reward_model": vowels}
    with pytest.raises(ConfigError, match=rf"train_with_trl_grpo\({argument}=...\) got 5"):
        await train_with_trl_grpo(**{**arguments, argument: 5})


async def test_a_folder_that_holds_a_run_is_never_overwritten(tmp_path):
    await run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="never overwritten") as caught:
        await run(tmp_path / "run")
    assert "resume" not in str(caught.value)
    assert "choose another output_dir" in str(caught.value)
    agent = await load_agent_from_checkpoint(tmp_path / "run")  # what the message says
    await run(tmp_path / "next", agent=agent)


async def test_adapters_of_an_earlier_training_are_not_trained_as_weights(tmp_path):
    agent = tiny(max_new_tokens=4)
    settings = {"lora": True, "num_generations": 2, "batch_size": 4, "gradient_accumulation_steps": 1}
    await train(agent, environment(), num_episodes=4, reward_fn=vowels, config_overrides=settings, quiet=True)
    with pytest.raises(ConfigError, match="has LoRA adapters"):
        await run(tmp_path / "run", agent=agent)


@pytest.mark.parametrize("when", ["talking", "learning"])
async def test_a_cancelled_run_ends_its_thread_and_leaves_the_agent_as_it_was(tmp_path, monkeypatch, when):
    agent = tiny()
    await agent.initialize()
    before = weights(agent)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    reward = vowels
    if when == "talking":

        async def reward(turns, context=None):
            reached.set()
            await asyncio.sleep(60)
            return 1.0
    else:
        from trl import GRPOTrainer

        compute = GRPOTrainer._compute_loss

        def slow(self, model, inputs):
            loop.call_soon_threadsafe(reached.set)
            return compute(self, model, inputs)

        monkeypatch.setattr(GRPOTrainer, "_compute_loss", slow)
    task = asyncio.ensure_future(run(tmp_path / "run", agent=agent, reward=reward, num_episodes=8000))
    await asyncio.wait({task, asyncio.ensure_future(reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
    begin = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begin < 30
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(agent).items())
    assert not has_lora(agent.runtime.model)
    if when == "talking":  # nothing was recorded, so the same call may begin again
        RunFolder.require_free(tmp_path / "run")
    else:
        assert RunFolder.open(tmp_path / "run").status.state == "interrupted"
    assert isinstance(await agent.generate_response([{"role": "user", "content": "Hi"}]), str)


async def test_one_agent_is_not_trained_twice_at_once(tmp_path):
    agent = tiny()
    first = asyncio.ensure_future(run(tmp_path / "one", agent=agent))
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match="being trained already"):
        await run(tmp_path / "two", agent=agent)
    await first


async def test_a_customer_service_agent_is_trained_from_a_name(tmp_path, capsys):
    settings = {name: value for name, value in SMALL.items() if name != "num_episodes"}
    agent = await train_customer_service_with_trl(
        model_name="tiny", num_episodes=8, output_dir=str(tmp_path / "my_agent"), use_lora=True, **settings
    )
    assert await agent.generate_response(messages=[{"role": "user", "content": "Where is my order?"}]) is not None
    assert (tmp_path / "my_agent" / "final_model" / "model.safetensors").is_file()
    assert "GRPO Agent Framework - Training Complete" in capsys.readouterr().out
    (row,) = read_metrics(tmp_path / "my_agent")
    assert {"reward/correctness", "reward/helpfulness", "reward/safety"} <= row.keys()
