"""Adapters on weights rounded to 4 and 8 bits, with TRL: the real trainer, the real bitsandbytes, a tiny model."""

import asyncio
import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.agent import AgentConfig, load_agent_from_checkpoint
from stateset_agents.core.errors import ConfigError, TrainingStopped
from stateset_agents.models import has_lora
from stateset_agents.models.quantized import QuantizedLinear
from stateset_agents.tracking.run_folder import read_metrics
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo

if not importlib.metadata.version("trl").startswith("1.16."):
    pytest.skip("TRL 1.16 is bridged to", allow_module_level=True)

IDS = torch.arange(40)[None]
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
LOADS_WITHOUT = """
import sys
sys.modules["bitsandbytes"] = None  # not to be imported
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
ids = tokenizer("Where is my order?", return_tensors="pt").input_ids
print(model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] - ids.shape[1])
"""


def with_bitsandbytes(test):
    for mark in (
        pytest.mark.slow,
        pytest.mark.skipif(
            importlib.util.find_spec("bitsandbytes") is None, reason="the extra quantization is not installed"
        ),
        pytest.mark.parametrize("field", ["use_4bit", "use_8bit"]),
    ):
        test = mark(test)
    return test


async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


def tiny(**settings):
    return MultiTurnAgent(AgentConfig(model_name="tiny", system_prompt="You are a helpful assistant.", **settings))


async def run(folder, *, agent=None, reward=vowels, **settings):
    config = TRLGRPOConfig(**{**SMALL, "output_dir": str(folder), **settings})
    return await train_with_trl_grpo(
        config=config,
        agent=agent or tiny(),
        environment=ConversationEnvironment(scenarios=SCENARIOS),
        reward_model=reward,
        quiet=True,
    )


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture
def trained(monkeypatch):
    """Logits of the model in TRL's hands whenever it is saved: rounded weights, adapters beside them."""
    from stateset_agents.training.trl.weights import ModelUnderTraining

    seen, weights = [], ModelUnderTraining.weights

    def with_logits(self):
        model = self.loaded.model
        training = model.training
        seen.append(logits(model.eval()))
        rounded = [part for part in model.modules() if isinstance(part, QuantizedLinear)]
        assert [part.bits for part in rounded] == [self._config.bits] * 14  # two layers, seven each
        model.train(training)
        return weights(self)

    monkeypatch.setattr(ModelUnderTraining, "weights", with_logits)
    return seen


@with_bitsandbytes
async def test_what_was_trained_is_what_is_saved_and_it_loads_without_bitsandbytes(tmp_path, trained, field):
    """Mutations: merge into the weights of before; merge without the scale."""
    fresh, agent = tiny(), tiny()
    await fresh.initialize()
    await run(tmp_path / "run", agent=agent, lora_alpha=24, save_steps=1, **{field: True})
    final = tmp_path / "run" / "final_model"
    saved, model = AutoModelForCausalLM.from_pretrained(final), agent.runtime.model.model
    base = fresh.runtime.model.model
    assert type(saved) is type(base)
    assert torch.equal(logits(saved), logits(model))
    assert torch.allclose(logits(saved), trained[-1], rtol=0, atol=5e-5)
    assert (logits(saved) - logits(base)).abs().max() > 0.1

    assert not has_lora(agent.runtime.model)
    assert [type(part) for part in model.modules()] == [type(part) for part in base.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert "quantization_config" not in json.loads((final / "config.json").read_text())
    assert AutoTokenizer.from_pretrained(final).chat_template == fresh.runtime.model.tokenizer.chat_template
    again = await load_agent_from_checkpoint(str(tmp_path / "run" / "checkpoints" / "step-1"))
    await again.initialize()
    assert torch.allclose(logits(again.runtime.model.model), trained[0], rtol=0, atol=5e-5)
    command = [sys.executable, "-c", LOADS_WITHOUT, final]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert 1 <= int(done.stdout) <= 4


@with_bitsandbytes
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_checkpointing": True, "bf16": True}, {"beta": 0.1, "num_iterations": 2}]
)
async def test_conversations_are_held_by_the_policy_that_learns(tmp_path, monkeypatch, field, settings):
    """TRL's log-probs of a round's first pass are those of sampling: one sum makes both.

    Mutation: `bitsandbytes.nn.Linear8bitLt`, which rounds what it is given when it samples.
    """
    from trl import GRPOTrainer

    gaps, loss = [], GRPOTrainer._compute_loss
    compute = GRPOTrainer._get_per_token_logps_and_entropies

    def watched(self, *arguments, **named):
        found = compute(self, *arguments, **named)
        if torch.is_grad_enabled():
            gaps.append(found[0].detach())
        return found

    def with_inputs(self, model, inputs):
        result = loss(self, model, inputs)
        spoken = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        gaps[-1] = (gaps[-1] - inputs["sampling_per_token_logps"]).abs()[spoken].max().item()
        return result

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watched)
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", with_inputs)
    await run(tmp_path / "run", **{field: True}, **settings)
    passes = 2 * settings.get("num_iterations", 1)
    rounds = [gaps[at : at + 2] for at in range(0, len(gaps), passes)]
    assert len(rounds) == 2
    assert max(gap for one in rounds for gap in one) < 1e-3
    rows = read_metrics(tmp_path / "run")
    assert all(row["grad_norm"] > 0 for row in rows)


@with_bitsandbytes
async def test_recomputed_activations_change_nothing_that_is_learned(tmp_path, field):
    kept, recomputed = tiny(), tiny()
    await run(tmp_path / "a", agent=kept, gradient_checkpointing=False, **{field: True})
    await run(tmp_path / "b", agent=recomputed, gradient_checkpointing=True, **{field: True})
    pair = [agent.runtime.model.model.state_dict() for agent in (kept, recomputed)]
    assert all(torch.allclose(pair[0][name], pair[1][name], rtol=0, atol=1e-5) for name in pair[0])


@with_bitsandbytes
async def test_a_run_that_fails_leaves_the_weights_of_before(tmp_path, field):
    calls = []

    async def fails(turns, context=None):
        calls.append(turns)
        return await vowels(turns) if len(calls) <= 8 else float("nan")

    agent = tiny()
    await agent.initialize()
    model = agent.runtime.model.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts = dict(model.named_modules())
    with pytest.raises(TrainingStopped):
        await run(tmp_path / "run", agent=agent, reward=fails, num_episodes=800, **{field: True})
    assert dict(model.named_modules()) == parts
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert isinstance(await agent.generate_response(messages=[{"role": "user", "content": "Hi!"}]), str)


@with_bitsandbytes
async def test_an_agent_whose_weights_wait_in_main_memory_has_the_trained_ones_at_its_next_use(
    tmp_path, monkeypatch, field
):
    """As on a GPU that need not hold the weights unrounded, with this CPU in its place."""
    from stateset_agents.training.trl.run import TRLRun

    monkeypatch.setattr(TRLRun, "_waits_in_main_memory", lambda self: True)
    agent = tiny()
    await run(tmp_path / "run", agent=agent, **{field: True})
    assert not agent.initialized
    assert isinstance(await agent.generate_response(messages=[{"role": "user", "content": "Hi!"}]), str)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final_model")
    assert torch.equal(logits(agent.runtime.model.model), logits(saved))

    async def fails(turns, context=None):
        raise ValueError("no score")

    agent, fresh = tiny(), tiny()
    await fresh.initialize()
    with pytest.raises(TrainingStopped):
        await run(tmp_path / "failed", agent=agent, reward=fails, **{field: True})
    assert not agent.initialized
    await agent.initialize()
    assert torch.equal(logits(agent.runtime.model.model), logits(fresh.runtime.model.model))


@pytest.mark.parametrize("field", ["use_4bit", "use_8bit"])
@pytest.mark.parametrize("initialized", [False, True])
async def test_without_bitsandbytes_the_run_is_refused_before_a_file_is_written(
    tmp_path, monkeypatch, field, initialized
):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    agent = tiny()
    if initialized:
        await agent.initialize()
    with pytest.raises(ConfigError, match=rf"{field} needs the package bitsandbytes.*\[quantization\].*leave {field}"):
        await run(tmp_path / "run", agent=agent, **{field: True})
    assert agent.initialized == initialized
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["use_4bit", "use_8bit"])
async def test_a_machine_on_which_bitsandbytes_does_not_work_is_refused(tmp_path, monkeypatch, field):
    monkeypatch.setattr("stateset_agents.models.quantized.why_not", lambda bits, device: f"does not work on {device}")
    with pytest.raises(ConfigError, match=f"{field} does not work on cpu; or leave {field} out"):
        await run(tmp_path / "run", **{field: True})
    assert not (tmp_path / "run").exists()
