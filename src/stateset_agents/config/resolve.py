"""From a config file, the environment and the command line to one `RunConfig`.

Invariant: command line > `GRPO_*` variables > `training.overrides` > config > profile > built-in, for every key; and
all problems of all of them are told at once. Each source is checked by itself, so a wrong value is reported even where
another source would win over it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..core.errors import ConfigError, DataError
from ..core.reward import DEFAULT_NOTICE, KINDS
from ..core.yaml_strict import Path as KeyPath
from .alerts import BUILT_IN, AlertRule, taken_titles
from .algorithms import recipe_of
from .data_files import candidates, find_data_file
from .document import Document, read_document
from .environ import Override, environment_defaults, environment_overrides, unknown_variables
from .layers import FileLayer, Layer, Merged, NamedLayer
from .problems import dotted, explain_all, problem
from .profiles import COMMON, profile_values
from .reward_spec import RewardSpec, repeated
from .run_config import RunConfig
from .schema import AgentSection, CombinationMethod, EnvironmentSection, LoggingSection
from .training import TrainingConfig
from .unused import refused, unused_keys
from .variables import READ_AT_START, Expansion, check_variable_names

DEFAULT_OUTPUT_DIR = "./outputs"
DEFAULT_COMBINATION: CombinationMethod = "weighted_sum"


def load_config(
    path: str | Path,
    *,
    overrides: Sequence[Override] = (),
    output_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    needs_scenarios: bool = True,
) -> RunConfig:
    """Read a config file and decide every value of the run.

    Args:
        path: YAML or JSON.
        overrides: values that win over everything, such as those of command-line flags.
        output_dir: the run folder; `./outputs` by default.
        environ: environment variables; those of the process by default.
        needs_scenarios: refuse a config without any; whoever has them from elsewhere can do without.

    Raises:
        ConfigError: the file, a variable or an override is wrong; all problems at once.
        DataError: a data file that the config names does not exist.
    """
    shell = os.environ if environ is None else environ
    document = read_document(path)
    problems = _tidy_rewards(document) + check_variable_names(document)
    expansion = Expansion(document, shell)
    values = expansion.expand(_with_texts(document))
    own = values.get("environment_variables")
    environ = {**own, **shell} if isinstance(own, dict) else shell
    from_environment, wrong_variables = environment_overrides(environ)

    file_layer = FileLayer(document, values)
    layers: list[Layer] = [
        NamedLayer(environment_defaults(environ)),
        file_layer,
        NamedLayer(from_environment),
        NamedLayer(overrides),
    ]
    problems += expansion.problems + wrong_variables
    for layer in layers:
        problems += layer.check()
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return _finish(Merged(layers), document, file_layer, expansion.references, environ, output_dir, needs_scenarios)


def _tidy_rewards(document: Document) -> list[str]:
    """Bring the accepted spellings of the rewards to one: a list, and `combination_method` beside it."""
    data, lines = document.data, document.lines
    problems = []
    rewards = data.get("rewards")
    if isinstance(rewards, dict) and "functions" in rewards:
        data["rewards"] = rewards.pop("functions")
        for path in [path for path in lines if path[:2] == ("rewards", "functions")]:
            lines[("rewards", *path[2:])] = lines[path]
        for key, value in rewards.items():
            moved = key if key in ("combination_method", "reward_combination") else f"rewards.{key}"
            data.setdefault(moved, value)
            lines.setdefault((moved,), lines[("rewards", key)])
    if "reward_combination" in data:
        if "combination_method" in data:
            place = document.place(("reward_combination",))
            problems.append(problem(place, "reward_combination and combination_method mean the same: keep one."))
        data["combination_method"] = data.pop("reward_combination")
        lines[("combination_method",)] = lines[("reward_combination",)]
    return problems


def _with_texts(document: Document) -> dict[str, Any]:
    """The document's values, with the numbers and switches of `environment_variables` as they are spelled."""
    block = document.data.get("environment_variables")
    if not isinstance(block, dict):
        return document.data
    texts = dict(block)
    for name, value in block.items():
        if isinstance(value, (bool, int, float)):
            texts[name] = document.spelled(("environment_variables", name), value)
    return {**document.data, "environment_variables": texts}


def _finish(
    merged: Merged,
    document: Document,
    layer: FileLayer,
    references: Mapping[KeyPath, str],
    environ: Mapping[str, str],
    output_dir: str | Path | None,
    needs_scenarios: bool,
) -> RunConfig:
    data = merged.data
    origins = {dotted(path): origin for path, origin in merged.origins.items()}
    given = dict(origins)
    problems: list[str] = []

    _name_wandb_project(data, origins, environ)
    agent = AgentSection.model_validate(data.get("agent", {}))
    environment = EnvironmentSection.model_validate(data.get("environment", {}))
    if environment.user is not None:
        environment = environment.model_copy(update={"user": environment.user.filled()})
    logging = LoggingSection.model_validate(data.get("logging", {}))
    rewards = tuple(RewardSpec.model_validate(item) for item in data.get("rewards") or ())
    training = _training(data.get("training", {}), origins, layer, problems)
    alerts = tuple(AlertRule.model_validate(item) for item in data.get("alerts") or ())
    problems += _alerts_by_name(alerts, layer)

    problems += [problem(layer.place(path), message) for path, message in refused(agent, environment)]
    tasks = environment.type == "task"
    named = environment.tasks_file if tasks else environment.scenarios or environment.scenarios_file
    played = environment.type == "custom" or bool(named)
    # A section with a problem of its own is asked as it stands, so that no second problem is made of the first.
    file = data.get("training", {}).get("data_file") if training is None else training.data_file
    reads = file is not None
    if training is not None and reads and not played and training.eval_scenarios_file is None:
        training = _unevaluated(training, origins, given, layer, problems)
    if not played and not reads and needs_scenarios:
        key, example = ("tasks_file", "tasks.json") if tasks else ("scenarios_file", "customer_service_scenarios.json")
        hint = f"name a JSON or YAML file of {key.removesuffix('_file')}, for example data/{example}"
        problems.append(problem(layer.place(("environment",)), f"environment.{key} is missing.", hint))
    if logging.wandb is not None and logging.wandb.project is None:
        hint = "name it, or set WANDB_PROJECT or --wandb-project"
        problems.append(problem(layer.place(("logging", "wandb")), "logging.wandb.project is missing.", hint))
    if rewards and all(reward.weight == 0 for reward in rewards):
        problems.append(problem(layer.place(("rewards",)), "all rewards have weight 0: nothing could be learned."))
    for i, first in repeated(rewards):
        message = f"rewards[{i}] is the same reward as rewards[{first}]."
        problems.append(problem(layer.place(("rewards", i)), message, "keep one of them, with the weight of both"))
    if problems or training is None:
        raise ConfigError(*problems)

    if output_dir is not None:
        origins["output_dir"] = "--output-dir"
    config_file = document.file.expanduser().absolute()
    files = _DataFiles(config_file.parent, environ, layer)
    environment = files.found_in(environment, "tasks_file" if tasks else "scenarios_file", ("environment",))
    training = files.found_in(training, "eval_scenarios_file", ("training",))
    training = files.found_in(training, "data_file", ("training",))
    rewards = tuple(_with_files(item, files, ("rewards", i)) for i, item in enumerate(rewards))
    if files.problems:
        raise DataError("\n".join(files.problems))

    reward_notes = () if rewards or (reads and not training.eval_every) else (DEFAULT_NOTICE,)
    variables = data.get("environment_variables", {})
    combination: CombinationMethod = data.get("combination_method") or DEFAULT_COMBINATION
    unused = unused_keys(agent, environment, training, given) + unknown_variables(environ)
    unused += _unused_variables(variables, environ)
    if environ.get("WANDB_PROJECT") and logging.wandb is None:
        unused.append(("WANDB_PROJECT", 'the config has no "logging.wandb" section, so nothing is sent'))
    return RunConfig(
        agent=agent,
        environment=environment,
        rewards=rewards,
        combination_method=combination,
        training=training,
        logging=logging,
        alerts=alerts,
        environment_variables=variables,
        output_dir=Path(output_dir or DEFAULT_OUTPUT_DIR),
        config_file=config_file,
        origins=origins,
        notes=(*document.notes, *reward_notes, *(() if reads else _sampling_note(agent)), *training.plan.notes),
        unused=tuple(unused),
        references=references,
    )


def _unevaluated(
    training: TrainingConfig,
    origins: dict[str, str],
    given: Mapping[str, str],
    layer: FileLayer,
    problems: list[str],
) -> TrainingConfig:
    """A run that reads its conversations and has no scenarios: nothing is evaluated, unless somebody asked for it."""
    asked = training.early_stopping or ("training.eval_every" in given and training.eval_every)
    if asked:
        name = "early_stopping" if training.early_stopping else "eval_every"
        message = f"training.{name} is set, but there are no scenarios to evaluate on."
        hint = "name a file of them in training.eval_scenarios_file, or leave evaluations out with eval_every: 0"
        problems.append(problem(_Inside(layer, ("training",), origins).place((name,)), message, hint))
    if training.eval_every and not asked:
        origins["training.eval_every"] = "no scenarios to evaluate on"
    return training.model_copy(update={"eval_every": 0})


def _training(
    values: Mapping[str, Any], origins: dict[str, str], layer: FileLayer, problems: list[str]
) -> TrainingConfig | None:
    """The hyperparameters with the profile's values filled in, their origins noted; None if they contradict."""
    profile = values.get("profile", "balanced")
    algorithm = values.get("algorithm", COMMON["algorithm"])
    lora = values.get("lora") is not None
    filled = profile_values(profile, algorithm, lora=lora)
    origins.setdefault("training.profile", "default")
    for name in filled:
        from_profile = f"profile {profile}" + (" with LoRA" if lora and name == "learning_rate" else "")
        origin = "default" if name in COMMON else from_profile
        own = name != "algorithm" and name in recipe_of(algorithm).values
        origins.setdefault(f"training.{name}", f"algorithm {algorithm}" if own else origin)
    try:
        return TrainingConfig.model_validate({**filled, "profile": profile, **values})
    except ValidationError as error:
        problems += explain_all(error, TrainingConfig, values, _Inside(layer, ("training",), origins))
        return None


def _alerts_by_name(rules: Sequence[AlertRule], layer: FileLayer) -> list[str]:
    hint = f"give it a name of its own; {', '.join(BUILT_IN)} are what a run tells of itself"
    return [
        problem(layer.place(("alerts", index)), f'alerts[{index}] is called "{title}", as another alert is.', hint)
        for index, title in taken_titles(rules)
    ]


class _Inside:
    """Places of a section that was validated by itself."""

    def __init__(self, layer: FileLayer, prefix: KeyPath, origins: Mapping[str, str]) -> None:
        self._layer, self._prefix, self._origins = layer, prefix, origins

    def place(self, path: KeyPath) -> str:
        origin = self._origins.get(dotted((*self._prefix, *path)), "")
        return origin if origin.startswith(("--", "GRPO_")) else self._layer.place((*self._prefix, *path))

    def subject(self, path: KeyPath) -> str:
        return dotted((*self._prefix, *path)) if path else ""


def _name_wandb_project(data: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    wandb = data.get("logging", {}).get("wandb")
    project = environ.get("WANDB_PROJECT")
    if isinstance(wandb, dict) and project and not wandb.get("project"):
        wandb["project"] = project
        origins["logging.wandb.project"] = "WANDB_PROJECT"


class _DataFiles:
    """Replaces relative names of data files by the files that they mean, and collects those that are missing."""

    def __init__(self, base_dir: Path, environ: Mapping[str, str], layer: FileLayer) -> None:
        self._base_dir, self._environ, self._layer = base_dir, environ, layer
        self.problems: list[str] = []

    def found_in(self, section: Any, key: str, path: KeyPath, *, folders: bool = False) -> Any:
        name = getattr(section, key)
        if name is None:
            return section
        file = find_data_file(name, self._base_dir, self._environ, folders=folders)
        if file is None:
            looked = candidates(name, self._base_dir, self._environ)
            told = f'data error in {self._layer.place((*path, key))}: {dotted((*path, key))} is "{name}"'
            other = next((place for place in looked if place.exists()), None)
            if other is not None:
                hint = ": name one in it" if other.is_dir() else ""
                self.problems.append(f"{told}, and {other} is no file{hint}.")
            else:
                listed = "\n    ".join(map(str, looked))
                self.problems.append(
                    f"{told}, and there is no such {'folder' if folders else 'file'}.\n  looked at:\n    {listed}"
                )
            return section
        return section.model_copy(update={key: str(file)})


def _with_files(reward: RewardSpec, files: _DataFiles, path: KeyPath) -> RewardSpec:
    for key in reward.files:
        reward = files.found_in(reward, key, path, folders=KINDS[reward.type].options[key].folder)
    return reward


def _unused_variables(variables: Mapping[str, str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    found = []
    for name, value in variables.items():
        if name in READ_AT_START:
            found.append((f"environment_variables.{name}", "it is read when Python starts: export it in the shell"))
        elif environ.get(name) != value:
            found.append((f"environment_variables.{name}", "the environment has set it already, and that wins"))
    return found


def _sampling_note(agent: AgentSection) -> list[str]:
    changed = [
        f"{name} {getattr(agent, name)}"
        for name, off in (("top_p", 1.0), ("top_k", 0), ("repetition_penalty", 1.0))
        if getattr(agent, name) != off
    ]
    if not changed:
        return []
    listed = ", ".join(changed)
    return [f"Training samples at temperature {agent.temperature} only; {listed} apply to evaluation and serving."]
