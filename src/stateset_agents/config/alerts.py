"""What somebody wants to be told of while a run goes on: `alerts` and `logging.alerts` of a config file, or `alerts` of
`train(...)`.

Invariant: a rule asks one question. The address that alerts are posted to is a secret, as whoever has it can post
there: a config names the variable that holds it, and never the address.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ..core.errors import ConfigError
from ..core.secrets import is_secret, is_variable
from .fields import Name, Positive, Real, Section
from .problems import NamedPlaces, dotted, explain_all

BUILT_IN = ("health", "nothing learned", "service down", "blocked", "run")
"""What a run tells of itself, by name."""


def _variable(name: str) -> str:
    if not is_variable(name) or not is_secret(name):
        raise ValueError(
            "want the name of an environment variable in capitals that says that its value is secret, such as "
            "ALERT_WEBHOOK, and not the address"
        )
    return name


_BREAKS_A_LINE = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters and of separators of lines and paragraphs."""


def _one_line(text: str) -> str:
    if any(unicodedata.category(char) in _BREAKS_A_LINE for char in text):
        raise ValueError("want one line without control characters, as it stands in lines of the log")
    return text


OneLine = Annotated[Name, AfterValidator(_one_line)]


class AlertRule(Section):
    """A question about the metrics of a run: too high, too low, missing; or about its silence."""

    name: OneLine | None = Field(default=None, description="how messages call it; null: what it asks")
    metric: OneLine | None = Field(default=None, description="a key of metrics.jsonl")
    above: Real | None = Field(default=None, description="it fires where the metric is above this")
    below: Real | None = Field(default=None, description="it fires where the metric is below this")
    steps: Positive | None = Field(default=None, description="measured steps in a row that it takes to fire; null: 1")
    clear: Real | None = Field(
        default=None, description="what the metric must reach again until it is resolved; null: above or below itself"
    )
    missing_steps: Positive | None = Field(default=None, description="it fires after so many steps without the metric")
    silent_minutes: Annotated[Real, Field(gt=0)] | None = Field(
        default=None, description="it fires after so many minutes without a step"
    )

    @property
    def title(self) -> str:
        """`name`, or what stands for it."""
        if self.name is not None:
            return self.name
        if self.silent_minutes is not None:
            return f"no step for {self.silent_minutes:g} minutes"
        if self.missing_steps is not None:
            return f"{self.metric} missing"
        return f"{self.metric} above {self.above:g}" if self.below is None else f"{self.metric} below {self.below:g}"

    @model_validator(mode="after")
    def _asks_one_question(self) -> Self:
        limits = [key for key in ("above", "below", "missing_steps") if self._says(key)]
        if self.silent_minutes is not None:
            others = [key for key in ("metric", "above", "below", "steps", "clear", "missing_steps") if self._says(key)]
            if others:
                raise ValueError(f"silent_minutes is about the run as a whole, and {others[0]} about a metric")
            return self
        if self.metric is None:
            raise ValueError('want a metric such as "metric: reward_mean", or silent_minutes')
        if len(limits) != 1:
            raise ValueError(
                "want one of above, below and missing_steps beside the metric; a second one is a second rule"
            )
        if self.missing_steps is not None and (self._says("steps") or self._says("clear")):
            raise ValueError("steps and clear belong to above and below; missing_steps says itself how many")
        if self.clear is not None and self.above is not None and self.clear > self.above:
            raise ValueError(f"clear is {self.clear:g}; with above it must be at most that, {self.above:g}")
        if self.clear is not None and self.below is not None and self.clear < self.below:
            raise ValueError(f"clear is {self.clear:g}; with below it must be at least that, {self.below:g}")
        return self

    def _says(self, key: str) -> bool:
        return getattr(self, key) is not None


class AlertsSection(Section):
    """Where alerts go, beside the log; used when the section is there, or when there are rules."""

    called: ClassVar[str] = "logging.alerts"
    """What messages call it."""

    file: Name = Field(default="alerts.jsonl", description="relative to the run folder")
    webhook_env: Annotated[Name, AfterValidator(_variable)] | None = Field(
        default=None, description="environment variable with the address that each alert is posted to as JSON"
    )
    cool_down: Annotated[Real, Field(ge=0)] = Field(
        default=10.0, description="minutes until the same rule is told again; what is still so by then is told"
    )
    built_in: bool = Field(default=True, description="also what the run knows itself: health, failures, services down")


class AlertSettings(AlertsSection):
    """What `train(...)` is told: the rules, and where they go."""

    called: ClassVar[str] = "alerts"

    rules: list[AlertRule] = Field(default_factory=list, description="as `alerts` of a config file")

    @classmethod
    def of(cls, given: object) -> Self:
        """The settings that a call gives.

        Args:
            given: a list of rules, or a mapping with `rules` and the keys of `logging.alerts`; a rule is a mapping with
                the keys of `AlertRule`.

        Raises:
            ConfigError: it is something else, or there is something wrong with it.
        """
        bare = isinstance(given, Sequence) and not isinstance(given, str)
        raw = dict(given) if isinstance(given, Mapping) else {"rules": given}
        if not (bare or isinstance(given, Mapping)):
            raise ConfigError(
                f"alerts is a {type(given).__name__}; it must be a list of rules, such as "
                '[{"metric": "reward_mean", "below": 0.2}], or a dict such as '
                '{"rules": [...], "webhook_env": "ALERT_WEBHOOK"}'
            )
        try:
            settings = cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(*explain_all(error, cls, raw, _Argument(bare=bare))) from None
        twice = [
            f'{_Argument(bare=bare).subject(("rules", index))} is called "{title}", as another alert is'
            for index, title in taken_titles(settings.rules)
        ]
        if twice:
            raise ConfigError(*twice)
        return settings

    @classmethod
    def owner(cls, key: str) -> str | None:
        """A rule alone is an easy slip."""
        return "it belongs in a rule, and rules in a list" if key in AlertRule.model_fields else super().owner(key)


def taken_titles(rules: Sequence[AlertRule]) -> list[tuple[int, str]]:
    """Index and title of each rule that is called as another alert is: the two would silence each other."""
    taken, found = set(BUILT_IN), []
    for index, rule in enumerate(rules):
        if rule.title in taken:
            found.append((index, rule.title))
        taken.add(rule.title)
    return found


class _Argument(NamedPlaces):
    """The argument `alerts`, given as a list or as a mapping."""

    def __init__(self, *, bare: bool) -> None:
        super().__init__()
        self._bare = bare

    def subject(self, path: tuple[str | int, ...]) -> str:
        """`alerts[0].above`, or `alerts.rules[0].above`."""
        return dotted(("alerts", *(path[1:] if self._bare else path)))
