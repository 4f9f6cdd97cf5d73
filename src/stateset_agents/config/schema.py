"""What a config file may say: every section and key, with its kind and range.

Invariant: a key that is not here is refused. A key that is here either takes effect or is reported with the reason
(`unused.py`); none is read and dropped.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    create_model,
    field_validator,
    model_validator,
)

from .alerts import AlertRule, AlertsSection
from .fields import Dotted, Name, NotNegative, Positive, ProfileName, Real, Section
from .reward_spec import RewardSpec
from .training import TrainingConfig
from .users import UserSection

DEFAULT_MODEL = "openai/gpt-oss-120b"

CombinationMethod = Literal["weighted_sum", "average", "min", "max"]


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise ValueError("want cpu, mps, cuda or cuda:N")
    return value


class ToolSpec(Section):
    """A function that an agent may call."""

    name: Name = Field(description="how the model calls it")
    description: str = Field(default="", description="what the model is told about it")
    function: Name = Field(description="a built-in by its bare name, or a dotted Python name")
    parameters: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the arguments; null: read from the function's signature"
    )
    sequential: bool = Field(default=False, description="calls of one turn wait for each other, in their order")


class ToolLimitsSection(Section):
    """What the tools of an agent may take."""

    calls_per_turn: Positive = Field(default=8, description="calls before a reply; those beyond are refused")
    seconds_per_call: Annotated[Real, Field(gt=0)] = Field(default=30.0, description="after which a call has failed")
    bytes_per_result: Positive = Field(default=4096, description="of one result that the model reads; the rest is cut")


class AgentSection(Section):
    """The agent that is trained."""

    type: Literal["multi_turn", "tool", "custom"] = Field(default="multi_turn", description="kind of agent")
    class_: Dotted | None = Field(
        default=None, alias="class", description="for type custom: an Agent class, my_module.MyClass"
    )
    model_name: Name = Field(default=DEFAULT_MODEL, description="model name or folder")
    system_prompt: str | None = Field(default=None, description="first message of every conversation")
    temperature: Annotated[Real, Field(gt=0, le=5)] = Field(default=0.7, description="sampling temperature")
    max_new_tokens: Annotated[Positive, Field(le=131_072)] = Field(default=256, description="longest reply, in tokens")
    top_p: Annotated[Real, Field(gt=0, le=1)] = Field(default=1.0, description="nucleus; evaluation and serving only")
    top_k: NotNegative = Field(default=0, description="0: off; evaluation and serving only")
    repetition_penalty: Annotated[Real, Field(gt=0, le=10)] = Field(
        default=1.0, description="1: off; evaluation and serving only"
    )
    memory_window: Positive | None = Field(default=None, description="turns that the agent remembers; null: all")
    context_compression: bool = Field(default=False, description="summarise what leaves the memory window")
    greeting: str | None = Field(
        default=None, description='what served conversations begin with; null: "Hello! How can I help you today?"'
    )
    tools: list[ToolSpec] | None = Field(default=None, description="for type tool: what the agent may call")
    tool_format: Literal["auto", "hermes", "llama", "json"] | None = Field(
        default=None, description="for type tool: how the model calls; null and auto read it off the chat template"
    )
    tool_limits: ToolLimitsSection | None = Field(default=None, description="for type tool: what the tools may take")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="kind of weights")
    device: Annotated[str, AfterValidator(_device)] | None = Field(
        default=None, description="cpu, cuda, cuda:N or mps; null: the GPU if there is a CUDA one, else the CPU"
    )

    trust_remote_code: bool = Field(
        default=False, description="run Python code that comes with the model; only if you have read it"
    )

    @model_validator(mode="after")
    def _class_belongs_to_custom(self) -> Self:
        _check_class(self.type, self.class_)
        return self


class EnvironmentSection(Section):
    """Who the agent talks to, and about what."""

    type: Literal["conversation", "task", "custom"] = Field(default="conversation", description="kind of environment")
    class_: Dotted | None = Field(
        default=None, alias="class", description="for type custom: an Environment class, my_module.MyClass"
    )
    max_turns: Annotated[Positive, Field(le=1000)] = Field(default=10, description="assistant turns per conversation")
    scenarios: list[dict[str, Any]] | None = Field(default=None, min_length=1, description="scenarios written here")
    scenarios_file: Name | None = Field(default=None, description="JSON or YAML file of scenarios")
    persona: str | None = Field(default=None, description="who the simulated user is")
    user: UserSection | None = Field(default=None, description="who answers the agent; null: each scenario's script")
    tasks_file: Name | None = Field(default=None, description="for type task: file of tasks")
    success_criteria: Name | None = Field(default=None, description="for type task: function that judges the end")

    @model_validator(mode="after")
    def _class_and_scenarios(self) -> Self:
        if self.scenarios and self.scenarios_file:
            raise ValueError("scenarios and scenarios_file exclude each other: keep one of them")
        _check_class(self.type, self.class_)
        return self


def _check_class(section_type: str, class_name: str | None) -> None:
    if section_type == "custom" and class_name is None:
        raise ValueError('type "custom" needs "class: my_module.MyClass"')
    if section_type != "custom" and class_name is not None:
        raise ValueError(f'"class" is for type "custom", but the type is "{section_type}"')


class WandbSection(Section):
    """Weights & Biases; used when the section is there."""

    project: Name | None = Field(default=None, description="project of the run; WANDB_PROJECT stands in for it")
    entity: Name | None = Field(default=None, description="user or team; null: your own default")
    tags: list[str] = Field(default=[], description="labels of the run")
    samples: NotNegative = Field(
        default=0, description="conversations of each step that it gets as a table; 0: nothing but metrics"
    )


class TensorboardSection(Section):
    """TensorBoard; used when the section is there."""

    log_dir: Name | None = Field(default=None, description="null: a folder `tensorboard` in the run folder")


class TrackioSection(Section):
    """trackio, on this machine only; used when the section is there."""

    project: Name = Field(description="whose runs are compared; `trackio show --project` shows them")


class MlflowSection(Section):
    """MLflow; used when the section is there."""

    experiment: Name = Field(description="whose runs are compared; made if there is none of that name")
    tracking_uri: Name | None = Field(default=None, description="null: the file `mlflow.db` in the run folder")


class TrackerSpec(Section):
    """A tracker that an installed package brings."""

    type: Name = Field(description="the name under which the package registers it")
    options: dict[str, Any] = Field(default={}, description="what it is made with, by name")


class LoggingSection(Section):
    """What is written where while the run goes on."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="least important messages that are shown"
    )
    log_file: Name | None = Field(default=None, description="relative to the run folder")
    format: Literal["text", "json"] = Field(
        default="text", description="of log records; json: one object a line, on stderr too, where steps are records"
    )
    alerts: AlertsSection | None = Field(default=None, description="where alerts go; null: to the log, if at all")
    wandb: WandbSection | None = Field(default=None, description="metrics to Weights & Biases; null: none")
    tensorboard: TensorboardSection | None = Field(default=None, description="metrics for TensorBoard; null: none")
    trackio: TrackioSection | None = Field(default=None, description="metrics for trackio; null: none")
    mlflow: MlflowSection | None = Field(default=None, description="metrics for MLflow; null: none")
    trackers: list[TrackerSpec] = Field(default=[], description="metrics to what other packages bring")

    @field_validator("level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


def _optional_fields() -> dict[str, Any]:
    """Every hyperparameter as a key that may be left out; the ranges come along with the annotation."""
    return {
        name: (field.rebuild_annotation() | None, Field(default=None, description=field.description))
        for name, field in TrainingConfig.model_fields.items()
        if name != "profile"
    }


OverridesSection: type[Section] = create_model("OverridesSection", __base__=Section, **_optional_fields())
"""`training.overrides`: hyperparameters that win over those beside it."""

TrainingSection: type[Section] = create_model(
    "TrainingSection",
    __base__=Section,
    profile=(ProfileName | None, Field(default=None, description=TrainingConfig.model_fields["profile"].description)),
    **_optional_fields(),
    overrides=(
        OverridesSection | None,
        Field(default=None, description="what wins over the keys beside it"),
    ),
)
"""`training`: the profile, and hyperparameters that win over the profile's."""


def _nothing(value: object) -> object:
    """A section with all its keys commented out parses as null: it is an empty section."""
    return {} if value is None else value


def _none(value: object) -> object:
    return [] if value is None else value


class ConfigFile(Section):
    """The whole file. Every section may be left out; `resolve.py` fills in what is missing."""

    agent: Annotated[AgentSection, BeforeValidator(_nothing)] = Field(
        default=AgentSection(), description="the agent that is trained"
    )
    environment: Annotated[EnvironmentSection, BeforeValidator(_nothing)] = Field(
        default=EnvironmentSection(), description="who the agent talks to, and about what"
    )
    rewards: list[SerializeAsAny[RewardSpec]] | None = Field(
        default=None, description="reward functions with their weights; null: a stated default"
    )
    combination_method: CombinationMethod | None = Field(
        default=None, description="how their scores become one; null: weighted_sum"
    )
    training: Annotated[TrainingSection, BeforeValidator(_nothing)] = Field(
        default=TrainingSection(), description="the profile, and hyperparameters that win over the profile's"
    )
    logging: Annotated[LoggingSection, BeforeValidator(_nothing)] = Field(
        default=LoggingSection(), description="what is written where while the run goes on"
    )
    alerts: Annotated[list[AlertRule], BeforeValidator(_none)] = Field(
        default=[], description="what to be told of while the run goes on"
    )
    environment_variables: Annotated[dict[str, str], BeforeValidator(_nothing)] = Field(
        default={}, description="set before torch loads, where the shell has not set them"
    )
