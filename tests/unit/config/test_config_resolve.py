"""One file, the environment and overrides become one run, in which every value knows where it came from."""

import json
import os
from pathlib import Path

import pytest

from stateset_agents.config import Override, RunConfig, TrainingConfig, load_config
from stateset_agents.core.errors import ConfigError, DataError

MINIMAL = "environment:\n  scenarios_file: scenarios.json\n"

DOCUMENTED = """\
# Complete training configuration example
agent:
  type: "multi_turn"  # or "tool", "custom"
  model_name: "openai/gpt-oss-120b"

  # Agent behavior
  system_prompt: "You are a helpful AI assistant."
  temperature: 0.8
  max_new_tokens: 512
  top_p: 0.9
  top_k: 50
  repetition_penalty: 1.1

  # Multi-turn specific
  memory_window: 10
  context_compression: false

  # Tool agent specific (if type: "tool")
  tools:
    - name: "calculator"
      description: "Perform calculations"
      function: "calculator_function"

environment:
  type: "conversation"  # or "task", "custom"
  max_turns: 15

  # For conversation environment
  scenarios_file: "scenarios.json"
  persona: "You are a helpful user."

  # For task environment
  tasks_file: "data/tasks.json"
  success_criteria: "task_completion_function"

rewards:
  # Built-in rewards
  - type: "helpfulness"
    weight: 0.4
  - type: "safety"
    weight: 0.3
  - type: "correctness"
    weight: 0.2
    ground_truth_file: "ground_truth.json"
  - type: "conciseness"
    weight: 0.1
    optimal_length: 150

  # Custom reward
  - type: "custom"
    module: "my_rewards.politeness_reward"
    weight: 0.2

  # Composite reward settings
  combination_method: "weighted_sum"  # or "average", "min", "max"

training:
  # Profile and episodes
  profile: "balanced"  # or "conservative", "aggressive", "experimental"
  num_episodes: 1000

  # Optimization
  auto_adjust: true
  early_stopping: true
  patience: 50

  # Checkpointing
  save_every: 100
  eval_every: 50

  # Advanced options
  multi_gpu: false
  gradient_checkpointing: false
  mixed_precision: true

  # Custom overrides
  overrides:
    learning_rate: 5e-6
    num_generations: 16
    batch_size: 4
    gradient_accumulation_steps: 4
    max_grad_norm: 1.0
    warmup_steps: 100
    weight_decay: 0.01

logging:
  level: "INFO"
  log_file: "training.log"

  # Weights & Biases
  wandb:
    project: "my-grpo-project"
    entity: "my-team"
    tags: ["experiment", "customer-service"]

  # TensorBoard
  tensorboard:
    log_dir: "./logs"

# Environment variables
environment_variables:
  CUDA_VISIBLE_DEVICES: "0,1"
  TOKENIZERS_PARALLELISM: "false"
"""


def problems_of(path: Path, environ: dict[str, str] | None = None, **options) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ=environ or {}, **options)
    return caught.value.problems


def load(path: Path, environ: dict[str, str] | None = None, **options) -> RunConfig:
    return load_config(path, environ=environ or {}, **options)


def test_the_documented_example_loads_with_every_value_where_it_belongs(write, folder):
    (folder / "ground_truth.json").write_text("{}")
    config = load(write(DOCUMENTED))
    assert config.agent.model_name == "openai/gpt-oss-120b"
    assert (config.agent.memory_window, config.agent.top_k) == (10, 50)
    assert config.environment.max_turns == 15
    assert [reward.type for reward in config.rewards] == [
        "helpfulness",
        "safety",
        "correctness",
        "conciseness",
        "custom",
    ]
    assert config.combination_method == "weighted_sum"
    assert config.training.learning_rate == 5e-6
    assert config.training.plan.conversations_per_step == 16
    assert config.logging.wandb is not None
    assert config.logging.wandb.tags == ["experiment", "customer-service"]
    assert config.environment_variables == {"CUDA_VISIBLE_DEVICES": "0,1", "TOKENIZERS_PARALLELISM": "false"}
    assert "combination_method stands inside the list" in config.notes[0]
    assert [key for key, _ in config.unused] == [
        "agent.tools",
        "environment.tasks_file",
        "environment.success_criteria",
    ]


def test_the_same_config_as_json_is_the_same_run(write, folder):
    document = {
        "environment": {"scenarios_file": "scenarios.json"},
        "training": {"profile": "aggressive", "overrides": {"learning_rate": "5e-6"}},
    }
    config = load(write(json.dumps(document, indent=1), "run.json"))
    assert config.training == TrainingConfig.from_profile("aggressive", learning_rate=5e-6)
    assert config.origins["training.learning_rate"] == "run.json:8"


def test_a_minimal_config_has_every_value(write, folder):
    config = load(write(MINIMAL))
    assert config.agent.model_name == "openai/gpt-oss-120b"
    assert config.training == TrainingConfig.from_profile("balanced")
    assert config.output_dir == Path("outputs")
    assert config.rewards == ()
    assert config.environment.scenarios_file == str(folder / "scenarios.json")
    assert config.base_dir == folder


def test_the_command_line_wins_over_variables_over_overrides_over_config_over_profile(write):
    text = MINIMAL + "training:\n  profile: conservative\n  mixed_precision: true\n  num_generations: 4\n"
    text += "  batch_size: 3\n  overrides:\n    num_generations: 6\n    mixed_precision: true\n    seed: 5\n"
    config = load(
        write(text),
        {"GRPO_MIXED_PRECISION": "false"},
        overrides=[Override("training.seed", 7, "--seed"), Override("training.profile", "aggressive", "--profile")],
    )
    training, origins = config.training, config.origins
    assert (training.seed, origins["training.seed"]) == (7, "--seed")
    assert (training.mixed_precision, origins["training.mixed_precision"]) == (False, "GRPO_MIXED_PRECISION")
    assert (training.num_generations, origins["training.num_generations"]) == (6, "run.yaml:9")
    assert (training.batch_size, origins["training.batch_size"]) == (3, "run.yaml:7")
    assert (training.learning_rate, origins["training.learning_rate"]) == (2e-5, "profile aggressive")
    assert (training.beta, origins["training.beta"]) == (0.0, "default")
    assert origins["training.profile"] == "--profile"


def test_a_flag_wins_over_a_variable(write):
    config = load(
        write(MINIMAL), {"GRPO_LOG_LEVEL": "ERROR"}, overrides=[Override("logging.level", "DEBUG", "--log-level")]
    )
    assert (config.logging.level, config.origins["logging.level"]) == ("DEBUG", "--log-level")


def test_a_flag_can_switch_off_what_the_config_switched_on(write):
    path = write(MINIMAL + "training:\n  early_stopping: true\n  overrides: {early_stopping: true}\n")
    off = Override("training.early_stopping", False, "--no-early-stopping")
    assert load(path).training.early_stopping is True
    assert load(path, overrides=[off]).training.early_stopping is False


def test_the_default_model_variable_is_only_a_default(write):
    environ = {"GRPO_DEFAULT_MODEL": "tiny"}
    config = load(write(MINIMAL), environ)
    assert (config.agent.model_name, config.origins["agent.model_name"]) == ("tiny", "GRPO_DEFAULT_MODEL")
    assert load(write(MINIMAL + "agent: {model_name: mine}\n"), environ).agent.model_name == "mine"


def test_use_gpu_false_means_the_cpu_whatever_the_config_says(write):
    path = write(MINIMAL + "agent: {device: cuda}\n")
    assert load(path, {"GRPO_USE_GPU": "false"}).agent.device == "cpu"
    assert load(path, {"GRPO_USE_GPU": "true"}).agent.device == "cuda"
    assert load(path, {"GRPO_USE_GPU": ""}).agent.device == "cuda"


def test_the_configs_own_variables_are_seen_too_and_lose_to_the_shell(write):
    path = write(MINIMAL + "environment_variables:\n  GRPO_LOG_LEVEL: debug\n")
    assert load(path).logging.level == "DEBUG"
    config = load(path, {"GRPO_LOG_LEVEL": "ERROR"})
    assert config.logging.level == "ERROR"
    assert (
        "environment_variables.GRPO_LOG_LEVEL",
        "the environment has set it already, and that wins",
    ) in config.unused


def test_a_null_hyperparameter_is_one_that_was_not_given_but_null_lora_means_no_adapters(write):
    text = MINIMAL + "training:\n  num_generations: null\n  lora: true\n  overrides:\n    lora: null\n"
    config = load(write(text))
    assert config.training.num_generations == 8
    assert config.training.lora is None
    assert config.origins["training.lora"] == "run.yaml:7"


def test_overrides_replace_lora_as_a_whole(write):
    config = load(write(MINIMAL + "training:\n  lora: {r: 4, alpha: 8}\n  overrides:\n    lora: {r: 2}\n"))
    assert config.training.lora is not None
    assert (config.training.lora.r, config.training.lora.alpha) == (2, 32)
    assert config.training.learning_rate == pytest.approx(1e-4)
    assert config.origins["training.learning_rate"] == "profile balanced with LoRA"


@pytest.mark.parametrize(
    "rewards",
    [
        "rewards:\n  functions:\n    - type: safety\n  combination_method: min\n",
        "rewards:\n  - type: safety\ncombination_method: min\n",
        "rewards:\n  - type: safety\nreward_combination: min\n",
        "rewards:\n  - type: safety\n  - combination_method: min\n",
        "rewards:\n  - type: safety\n  combination_method: min\n",
    ],
)
def test_every_spelling_of_the_combination_means_the_same(write, rewards):
    config = load(write(MINIMAL + rewards))
    assert [reward.type for reward in config.rewards] == ["safety"]
    assert config.combination_method == "min"
    assert config.origins["combination_method"].startswith("run.yaml:")


def test_two_spellings_of_the_combination_are_one_too_many(write):
    text = MINIMAL + "combination_method: min\nreward_combination: max\n"
    assert "mean the same" in problems_of(write(text))[0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("agent: {modle_name: tiny}\n", 3, 'agent.modle_name is not a known key.\n  did you mean "model_name"?'),
        ("trainning: {}\n", 3, 'trainning is not a known key.\n  did you mean "training"?'),
        ("learning_rate: 1e-5\n", 3, "it belongs in training.learning_rate"),
        ("output_dir: runs/x\n", 3, "output_dir is not a known key.\n  it is --output-dir on the command line"),
        ("training: {output_dir: x}\n", 3, "  it is --output-dir on the command line (in Python: output_dir=)"),
        ("agent:\n  num_episodes: 10\n", 4, "it belongs in training.num_episodes"),
        ("training:\n  num_episodes: many\n", 4, 'training.num_episodes is "many"; want a whole number'),
        ("training:\n  num_episodes: -1\n", 4, "training.num_episodes is -1; it must be at least 1"),
        ("training:\n  learning_rate: .nan\n", 4, "training.learning_rate is NaN; want a finite number"),
        ("training:\n  num_generations: 1\n", 4, "a group of one"),
        ("training:\n  overrides:\n    num_generations: 1\n", 5, "training.overrides.num_generations is 1"),
        ("training:\n  profile: fast\n", 4, "conservative, balanced, aggressive, experimental"),
        ("training: []\n", 3, "training is []; want a mapping of keys to values"),
        ("training: 7\n", 3, "want a mapping"),
        ("agent: {temperature: 0}\n", 3, "must be greater than 0.\n  at 0 all conversations"),
        ("agent: {top_p: 1.5}\n", 3, "agent.top_p is 1.5; it must be at most 1"),
        ("agent: {system_prompt: 5}\n", 3, 'want text.\n  put it in quotes: "5"'),
        ("agent: {system_prompt: true}\n", 3, 'put it in quotes: "true"'),
        ("agent: {device: gpu}\n", 3, "want cpu, mps, cuda or cuda:N"),
        ("agent: {type: tool}\n", 3, 'agent.type is "tool", and the agent has none'),
        ("agent: {type: tool, tools: [{name: a}]}\n", 3, "agent.tools[0].function is missing"),
        ("agent: {tool_format: xml}\n", 3, 'agent.tool_format is "xml"'),
        ("agent: {tool_limits: {calls_per_turn: 0}}\n", 3, "agent.tool_limits.calls_per_turn is 0"),
        ("agent: {type: custom}\n", 3, "class: my_module.MyClass"),
        ("agent: {class: my.Agent}\n", 3, 'the type is "multi_turn"'),
        ("rewards:\n  - type: helpfulnes\n", 4, 'did you mean "helpfulness"?  allowed: helpfulness, safety'),
        ("rewards:\n  - {type: safety, weight: -1}\n", 4, "rewards[0].weight is -1; it must be at least 0"),
        ("rewards:\n  - {type: safety, optimal_length: 5}\n", 4, 'optimal_length is for the reward "conciseness"'),
        ("rewards:\n  - {type: custom}\n", 4, "module: my_rewards.my_reward"),
        ("rewards:\n  - {type: llm_judge, model: m}\n", 4, 'a reward of type "llm_judge" needs "base_url: http'),
        ("rewards:\n  - {type: safety, rubric: kind}\n", 4, 'rubric is for the reward "llm_judge" and "group_judge"'),
        (
            "rewards:\n  - {type: llm_judge, base_url: b, model: m, retries: -1}\n",
            4,
            "retries is -1; it must be at least",
        ),
        ("rewards:\n  - {type: custom, module: 'a;b'}\n", 4, "want a dotted Python name"),
        ("rewards:\n  - {type: custom, module: ..x}\n", 4, "want a dotted Python name"),
        ("rewards:\n  - weight: 1\n", 4, "rewards[0].type is missing"),
        (
            "rewards:\n  - {type: safety}\n  - {type: engagement}\n  - {type: safety, weight: 0.5, name: again}\n",
            6,
            "rewards[2] is the same reward as rewards[0].\n  keep one of them, with the weight of both",
        ),
        ("rewards:\n  - {type: safety, weight: 0}\n", 3, "all rewards have weight 0"),
        ("rewards: helpfulness\n", 3, "want a list"),
        ("rewards: {functions: [], weights: 3}\n", 3, "rewards.weights is not a known key"),
        ("combination_method: sum\n", 3, "allowed: weighted_sum, average, min, max"),
        ("logging: {level: loud}\n", 3, "allowed: DEBUG, INFO"),
        ("logging:\n  wandb: {tags: [a]}\n", 4, "logging.wandb.project is missing"),
        ("environment_variables: {1X: a}\n", 3, '"1X" cannot be the name'),
        ("environment_variables: {X: [a]}\n", 3, "want text"),
        ("environment_variables: [a]\n", 3, "want a mapping"),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_fix(write, text, line, words):
    problems = problems_of(write(MINIMAL + text))
    assert len(problems) == 1
    assert problems[0].startswith(f"config error in run.yaml, line {line}: ")
    assert words in problems[0]


def test_an_environment_of_tasks_needs_a_file_of_them_and_scenarios_are_of_no_use_to_it(write):
    (problem,) = problems_of(write("environment: {type: task, scenarios: [{user_responses: [Hi]}]}\n"))
    assert problem.startswith("config error in run.yaml, line 1: environment.tasks_file is missing")
    path = write("environment: {type: task, tasks_file: t.json, scenarios: [{user_responses: [Hi]}]}\n")
    (path.parent / "t.json").write_text("{}")
    config = load_config(path, environ={})
    assert config.environment.tasks_file == str(path.parent / "t.json")
    assert [key for key, _ in config.unused] == ["environment.scenarios"]


def test_a_conversation_without_scenarios_is_refused(write):
    (problem,) = problems_of(write("agent:\n  model_name: tiny\nenvironment:\n  max_turns: 3\n"))
    assert problem.startswith("config error in run.yaml, line 3: environment.scenarios_file is missing")


def test_scenarios_written_in_two_places_are_refused(write):
    (problem,) = problems_of(write("environment: {scenarios_file: a.json, scenarios: [{user_responses: [Hi]}]}\n"))
    assert "exclude each other" in problem


def test_problems_of_the_file_the_environment_and_the_flags_are_told_together(write):
    problems = problems_of(
        write(MINIMAL + "agent: {top_k: -1}\ntraining: {seed: -1, nothing: 1}\n"),
        {"GRPO_USE_GPU": "maybe", "GRPO_LOG_LEVEL": "loud"},
        overrides=[Override("training.num_episodes", -3, "--num-episodes")],
    )
    text = "\n".join(problems)
    assert len(problems) == 6
    assert 'GRPO_USE_GPU is "maybe"; want true or false' in text
    assert 'config error: GRPO_LOG_LEVEL is "LOUD"' in text or 'config error: GRPO_LOG_LEVEL is "loud"' in text
    assert "config error: --num-episodes is -3; it must be at least 1" in text


def test_a_wrong_value_is_reported_even_if_a_flag_would_win_over_it(write):
    path = write(MINIMAL + "training: {num_episodes: -1}\n")
    assert len(problems_of(path, overrides=[Override("training.num_episodes", 5, "--num-episodes")])) == 1


def test_a_contradiction_between_layers_is_named(write):
    path = write(MINIMAL + "training:\n  eval_every: 0\n")
    (problem,) = problems_of(path, overrides=[Override("training.early_stopping", True, "--early-stopping")])
    assert problem.startswith("config error in --early-stopping: early_stopping is true, and it watches evaluations, ")
    assert "eval_every is 0, so there are none: set eval_every to a number of episodes" in problem


@pytest.mark.parametrize("key", ["agent.model_name", "environment.scenarios_file", "logging.log_file"])
def test_a_name_of_blanks_is_refused_where_it_stands(write, key):
    section, name = key.split(".")
    (problem,) = problems_of(write(f'{section}:\n  {name}: "  "\n'))
    assert problem == f'config error in run.yaml, line 2: {key} is "  ": want text that is not blank.'


def test_a_number_that_python_does_not_read_is_named_by_its_line(write):
    text = '{"environment": {"persona": "P"},\n "training": {\n  "num_episodes": N}}'
    text = text.replace("P", "7" * 5000).replace("N", "9" * 6000)
    (problem,) = problems_of(write(text, "run.json"))
    assert problem.startswith("config error in run.json, line 3: a number of 6000 digits; at most 4300 can be read")


def test_all_missing_data_files_are_told_with_every_place_that_was_looked_at(write, folder):
    text = (
        "environment:\n  scenarios_file: data/none.json\nrewards:\n  - {type: correctness, ground_truth_file: g.json}\n"
    )
    with pytest.raises(DataError) as caught:
        load(write(text), {"GRPO_DATA_DIR": "/srv/data"})
    message = str(caught.value)
    assert 'data error in run.yaml, line 2: environment.scenarios_file is "data/none.json"' in message
    assert str(folder / "data" / "none.json") in message
    assert str(Path.cwd() / "data" / "none.json") in message
    assert "/srv/data/data/none.json" in message
    assert "/srv/data/none.json" in message
    assert 'data error in run.yaml, line 4: rewards[0].ground_truth_file is "g.json"' in message


def test_a_folder_is_no_data_file(write, folder):
    (folder / "data").mkdir()
    with pytest.raises(DataError) as caught:
        load(write("environment:\n  scenarios_file: data\n"), {})
    told = 'data error in run.yaml, line 2: environment.scenarios_file is "data", and'
    assert str(caught.value) == f"{told} {folder / 'data'} is no file: name one in it."


def test_a_data_file_is_found_beside_the_config_then_beside_configs_then_here_then_in_the_data_directory(
    tmp_path, monkeypatch
):
    places = [tmp_path / "configs", tmp_path, tmp_path / "here", tmp_path / "store" / "data"]
    files = [place / ("s.json" if place.name == "data" else "data/s.json") for place in places]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    config = tmp_path / "configs" / "run.yaml"
    config.write_text("environment: {scenarios_file: data/s.json}\n")
    monkeypatch.chdir(tmp_path / "here")
    for file in files:
        found = load(config, {"GRPO_DATA_DIR": str(tmp_path / "store" / "data")}).environment.scenarios_file
        assert found == str(file)
        file.unlink()


def test_inline_scenarios_need_no_file(write):
    config = load(write("environment:\n  scenarios:\n    - {user_responses: [Hi]}\n"))
    assert config.environment.scenarios == [{"user_responses": ["Hi"]}]


def test_a_custom_environment_needs_no_scenarios(write):
    assert load(write("environment: {type: custom, class: mine.World}\n")).environment.class_ == "mine.World"


def test_variables_are_expanded_in_text_with_defaults_and_an_escape(write):
    text = MINIMAL + "agent:\n  model_name: ${MODEL}\n  system_prompt: '${WHO:-You} pay $5, $${plain}'\n"
    text += "training: {num_episodes: '${N:-64}'}\n"
    config = load(write(text), {"MODEL": "tiny", "WHO": ""})
    assert config.agent.model_name == "tiny"
    assert config.agent.system_prompt == "You pay $5, ${plain}"
    assert config.training.num_episodes == 64


def test_a_variable_that_is_not_set_is_named_with_line_and_fix(write):
    (problem,) = problems_of(write(MINIMAL + "agent:\n  system_prompt: ${WHO}\n"))
    assert problem.startswith("config error in run.yaml, line 4: agent.system_prompt refers to")
    assert "${WHO:-value}" in problem


def test_a_broken_reference_is_named(write):
    assert "starts no variable" in problems_of(write(MINIMAL + "agent:\n  system_prompt: 'a ${b'\n"))[0]


@pytest.mark.parametrize(
    "text", ["rewards:\n  - {type: custom, module: 'a.${X}'}\n", "agent: {type: custom, class: '${X}'}\n"]
)
def test_the_name_of_code_is_never_made_from_a_variable(write, text):
    assert "names code" in problems_of(write(MINIMAL + text), {"X": "os.system"})[0]


def test_values_of_environment_variables_keep_their_spelling(write):
    text = MINIMAL + "environment_variables:\n  A: 1.10\n  B: false\n  C: 0\n  D: no\n"
    assert load(write(text)).environment_variables == {"A": "1.10", "B": "false", "C": "0", "D": "no"}


def test_the_environment_that_is_set_wins_over_the_configs(write, monkeypatch):
    config = load(write(MINIMAL + "environment_variables: {RUN_TEST_A: mine, RUN_TEST_B: mine}\n"))
    monkeypatch.setenv("RUN_TEST_A", "shell")
    monkeypatch.setenv("RUN_TEST_B", "removed")
    monkeypatch.delenv("RUN_TEST_B")
    assert config.apply_environment_variables() == ["RUN_TEST_A"]
    assert (os.environ["RUN_TEST_A"], os.environ["RUN_TEST_B"]) == ("shell", "mine")


@pytest.mark.parametrize(
    ("text", "environ", "key", "reason"),
    [
        ("training: {multi_gpu: true}\n", {}, "training.multi_gpu", "one device"),
        ("training: {lora: {dropout: 0.1}}\n", {}, "training.lora.dropout", "the same policy"),
        ("training: {patience: 9}\n", {}, "training.patience", "early_stopping is off"),
        ("training: {kl_estimator: k2}\n", {}, "training.kl_estimator", "beta is 0"),
        ("training: {kl_correction: true}\n", {}, "training.kl_correction", "beta is 0"),
        ("training: {discount: 0.5}\n", {}, "training.discount", "credit is trajectory"),
        ("training: {overlong_penalty: 3}\n", {}, "training.overlong_penalty", "overlong_share is 0"),
        (
            "training: {sampler_correction_cap: 5}\n",
            {},
            "training.sampler_correction_cap",
            "sampler_correction is none",
        ),
        ("environment_variables: {PYTHONPATH: x}\n", {}, "environment_variables.PYTHONPATH", "export it in the shell"),
        ("", {"GRPO_DEFAULT_MODL": "x"}, "GRPO_DEFAULT_MODL", 'did you mean "GRPO_DEFAULT_MODEL"'),
        ("", {"WANDB_PROJECT": "x"}, "WANDB_PROJECT", "nothing is sent"),
    ],
)
def test_what_has_no_effect_is_listed_with_the_reason(write, text, environ, key, reason):
    unused = dict(load(write(MINIMAL + text), environ).unused)
    assert list(unused) == [key]
    assert reason in unused[key]


def test_variables_of_other_rooms_are_not_reported(write):
    environ = {"GRPO_CACHE_DIR": "x", "GRPO_SERVER_PORT": "1", "GRPO_AUTH_TOKEN": "y", "GRPO_SERVER_HOST": "z"}
    assert load(write(MINIMAL), environ).unused == ()


def test_an_empty_wandb_section_takes_its_project_from_the_environment(write):
    config = load(write(MINIMAL + "logging:\n  wandb: {}\n"), {"WANDB_PROJECT": "ours"})
    assert config.logging.wandb is not None
    assert config.logging.wandb.project == "ours"
    assert config.origins["logging.wandb.project"] == "WANDB_PROJECT"


def test_a_project_given_as_a_flag_joins_the_section_of_the_config(write):
    config = load(
        write(MINIMAL + "logging:\n  wandb: {entity: us, project: theirs}\n"),
        overrides=[Override("logging.wandb.project", "ours", "--wandb-project")],
    )
    assert config.logging.wandb is not None
    assert (config.logging.wandb.entity, config.logging.wandb.project) == ("us", "ours")


def test_sections_with_all_keys_commented_out_are_empty_sections(write):
    text = MINIMAL + "agent:\ntraining:\nlogging:\nrewards:\nenvironment_variables:\n"
    assert load(write(text)).to_dict() == load(write(MINIMAL)).to_dict()


def test_truncated_sampling_is_said_to_be_for_evaluation_and_serving(write):
    notes = load(write(MINIMAL + "agent: {top_k: 5}\ntraining: {num_episodes: 1600}\n")).notes
    assert "top_k 5 apply to evaluation and serving" in notes[-1]


def test_a_run_without_rewards_announces_the_default_one(write):
    assert "no reward was given" in load(write(MINIMAL)).notes[0]
    assert load(write(MINIMAL + "rewards: [{type: safety}]\ntraining: {num_episodes: 1600}\n")).notes == ()


def test_the_resolved_config_is_read_back_to_the_same_run(write, folder):
    (folder / "ground_truth.json").write_text("{}")
    config = load(
        write(DOCUMENTED + "  PROMPT: 'a $${b} 5e-6'\n"),
        overrides=[Override("training.lora", {"r": 4}, "--lora"), Override("training.seed", 9, "--seed")],
    )
    elsewhere = folder / "runs"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").write_text(config.to_yaml())
    again = load(elsewhere / "config.yaml")
    assert again.to_dict() == config.to_dict()
    assert (again.agent, again.environment, again.rewards) == (config.agent, config.environment, config.rewards)
    assert (again.training, again.logging) == (config.training, config.logging)
    assert again.environment_variables == config.environment_variables
    assert again.unused == config.unused


def test_secrets_are_written_as_the_variable_they_came_from_or_not_at_all(write):
    text = MINIMAL + "agent: {system_prompt: 'hush ${MY_TOKEN}'}\n"
    text += "environment_variables:\n  WANDB_API_KEY: canary-literal\n  HF_TOKEN: ${MY_TOKEN}\n  PLAIN: x\n"
    config = load(write(text), {"MY_TOKEN": "canary-variable"})
    assert config.environment_variables["WANDB_API_KEY"] == "canary-literal"
    assert config.environment_variables["HF_TOKEN"] == "canary-variable"
    assert config.agent.system_prompt == "hush canary-variable"
    written = config.to_yaml()
    assert "canary" not in written
    assert "hush ${MY_TOKEN}" in written
    assert "HF_TOKEN: ${MY_TOKEN}" in written
    assert "PLAIN: x" in written


def test_a_secret_is_never_repeated_in_a_problem(write):
    problems = problems_of(
        write(MINIMAL + "environment_variables: {MY_API_KEY: [canary]}\nagent: {api_token: canary}\n")
    )
    assert len(problems) == 2
    assert "canary" not in "\n".join(problems)


def test_an_api_key_in_the_place_of_its_variable_is_not_repeated(write):
    entry = "{type: llm_judge, base_url: b, model: m, api_key_env: sk-canary}"
    (problem,) = problems_of(write(MINIMAL + f"rewards: [{entry}]\n"))
    assert "api_key_env must be the name of an environment variable in capitals" in problem
    assert "canary" not in problem


def test_a_value_from_a_variable_is_not_repeated_in_a_problem_either(write):
    problems = problems_of(write(MINIMAL + "training: {num_episodes: '${MY_TOKEN}'}\n"), {"MY_TOKEN": "canary"})
    assert "canary" not in "\n".join(problems)


def test_the_place_of_a_value_is_its_own_or_that_of_what_contains_it(write):
    text = MINIMAL + "rewards:\n  - type: safety\n  - type: engagement\ntraining:\n  lora: {r: 4}\n"
    config = load(write(text), overrides=[Override("training.seed", 3, "--seed")])
    assert config.place("rewards[1].weight") == "run.yaml, line 5"
    assert config.place("training.lora.r") == "run.yaml, line 7"
    assert config.place("training.seed") == "--seed"
    assert config.place("agent.top_k") == "run.yaml"
    assert config.origin("training.batch_size") == "profile balanced"
    assert config.located("rewards[0]", "it is odd", "make it even") == (
        "config error in run.yaml, line 4: it is odd\n  make it even"
    )


def test_null_takes_a_limit_away(write):
    text = MINIMAL + "training: {algorithm: cispo, ratio_cap: null, reward_timeout: null, patience: null}\n"
    config = load(write(text)).training
    assert (config.ratio_cap, config.reward_timeout) == (None, None)
    assert config.patience > 0  # null of any other is one that was not given


@pytest.mark.parametrize("profile", ["experimental", "balanced"])
def test_pairs_of_a_file_go_with_every_profile(write, tmp_path, profile):
    (tmp_path / "p.jsonl").write_text("{}\n")
    text = f"agent: {{model_name: tiny}}\ntraining: {{profile: {profile}, algorithm: dpo, data_file: p.jsonl}}\n"
    assert load(write(text)).training.algorithm == "dpo"


def test_a_clash_of_settings_makes_no_second_problem(write, tmp_path):
    (tmp_path / "p.jsonl").write_text("{}\n")
    text = "agent: {model_name: tiny}\ntraining: {algorithm: sft, data_file: p.jsonl, beta: 0.1}\n"
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    assert len(caught.value.problems) == 1
