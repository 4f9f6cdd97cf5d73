"""TRL itself: the one version that is known, what happens without it, and that none of its defaults decides."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import SafetyReward
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo
from stateset_agents.training.trl.library import grpo_arguments, import_trl, require_trl
from stateset_agents.training.trl.machine import Precision
from stateset_agents.training.trl.plan import make_plan

INSTALL = "pip install 'grpo-agent-framework[trl]'"

WITHOUT_TRL = """
import asyncio, sys
sys.modules["trl"] = None
from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import SafetyReward
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo

config = TRLGRPOConfig(output_dir="run")
config.validate()
agent = MultiTurnAgent.from_model("tiny")
try:
    asyncio.run(train_with_trl_grpo(
        config=config, agent=agent, environment=ConversationEnvironment([{"user_responses": ["Hi"]}]),
        reward_model=SafetyReward(), quiet=True,
    ))
except ConfigError as error:
    print(error)
assert not agent.initialized
"""


def test_without_trl_training_says_what_to_install_before_it_loads_a_model(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRL],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=dict(os.environ),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert INSTALL in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_trl_that_was_never_installed_is_told_in_one_line(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match="needs the package trl, which is not installed") as caught:
        require_trl()
    assert INSTALL in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["1.15.3", "1.17.0", "1.160.0", "2.0.0", "0.1.16"])
async def test_another_minor_release_is_refused_before_anything_is_done(monkeypatch, tmp_path, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    agent = MultiTurnAgent.from_model("tiny")
    with pytest.raises(ConfigError, match=rf"made for trl 1\.16, and {version} is installed"):
        await train_with_trl_grpo(
            TRLGRPOConfig(output_dir=str(tmp_path / "run")),
            agent,
            ConversationEnvironment([{"user_responses": ["Hi"]}]),
            SafetyReward(),
            quiet=True,
        )
    assert not agent.initialized
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("version", ["1.16", "1.16.0", "1.16.4"])
def test_every_patch_release_of_the_known_one_is_taken(monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    require_trl()


def arguments(**fields):
    config = TRLGRPOConfig(**fields)
    cpu = Precision(False, False, True)
    return grpo_arguments(config, make_plan(config), cpu, Path("run"), temperature=0.8, max_tokens=99)


WITHOUT_EFFECT = {
    "model_init_kwargs",  # the model is loaded already
    "trust_remote_code",
    "ds3_gather_for_generation",
    "num_generations_eval",  # TRL never evaluates
    "generation_batch_size",  # follows from steps_per_generation
    "chat_template_kwargs",  # TRL neither renders nor generates
    "cache_implementation",
    "max_tool_calling_iterations",
    "transformers_continuous_batching_config",
    "use_transformers_paged",
    "ref_model_mixup_alpha",  # of sync_ref_model, which is off
    "ref_model_sync_steps",
    "entropy_coef_min",  # of use_adaptive_entropy, which is off
    "entropy_coef_max",
    "entropy_coef_delta",
    "entropy_target",
    "log_multimodal",  # of log_completions, which is off
    "num_completions_to_print",
    "log_unique_prompts",
    "log_completions_hub_repo",
}
OF_ANOTHER_LOSS = ("sapo_", "vespo_", "vllm_")


def test_every_setting_of_trls_own_is_set_or_known_to_have_no_effect():
    """A release that adds a setting fails here, and somebody decides what it should be."""
    from transformers import TrainingArguments

    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    own = {field.name for field in dataclasses.fields(import_trl().GRPOConfig)} - inherited
    left = own - arguments().keys() - WITHOUT_EFFECT
    assert {name for name in left if not name.startswith(OF_ANOTHER_LOSS)} == set()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_trl_takes_the_arguments_and_reads_them_as_they_are_meant(tmp_path):
    given = {**arguments(num_episodes=1600, beta=0.02, epsilon_high=0.28), "output_dir": str(tmp_path)}
    config = import_trl().GRPOConfig(**given)
    assert (config.max_steps, config.generation_batch_size, config.num_generations) == (100, 16, 4)
    assert (config.beta, config.epsilon, config.epsilon_high) == (0.02, 0.2, 0.28)
    assert (config.loss_type, config.scale_rewards, config.temperature) == ("dapo", "group", 0.8)
    assert (config.bf16, config.fp16, config.use_cpu) == (False, False, True)
    assert config.report_to == []


def test_a_constant_rate_may_have_a_warm_up():
    assert arguments(lr_scheduler_type="constant")["lr_scheduler_type"] == "constant"
    assert arguments(lr_scheduler_type="constant", warmup_steps=3)["lr_scheduler_type"] == "constant_with_warmup"
