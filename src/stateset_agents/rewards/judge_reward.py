"""What rewards that ask a judge have in common: how they are made, in a config too, and what a run says about them.

Invariant: an entry holds the name of the API key's variable, never the key.

    rewards:
      - type: llm_judge
        base_url: http://127.0.0.1:8000/v1
        model: Qwen/Qwen3-4B
        api_key_env: JUDGE_API_KEY    # only where the server wants a key
        rubric: Is the answer right, complete and polite?
        show: [ground_truth]
        cache_file: judged.sqlite     # beside the config file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ..core.errors import ConfigError
from ..core.rewards.base import RewardFunction
from ..core.rewards.kinds import kind_of
from ..engines.chat_model import ChatModel
from ..engines.endpoint import Endpoint
from .judge_cache import JudgeCache
from .judging import Judge, checked_showable


class JudgeReward(RewardFunction):
    """Base of them; a subclass asks `judge`, by `rubric`, and lays what `show` names before it."""

    default_rubric: ClassVar[str]
    default_max_tokens: ClassVar[int]

    def __init__(
        self,
        model: ChatModel,
        rubric: str | Sequence[str] | None = None,
        weight: float = 1.0,
        name: str = "",
        *,
        show: Sequence[str] = (),
        cache: JudgeCache | None = None,
        temperature: float = 0.0,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.rubric = self.default_rubric if rubric is None else checked_rubric(rubric, self.label)
        self.show = checked_showable(show, self.label)
        longest = self.default_max_tokens if max_tokens is None else max_tokens
        self.judge = Judge(model, cache, temperature=temperature, max_tokens=longest)

    @classmethod
    def from_entry(
        cls,
        *,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        rubric: str | None = None,
        show: Sequence[str] | None = None,
        cache_file: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seconds: float | None = None,
        total_seconds: float | None = None,
        retries: int | None = None,
        first_wait: float | None = None,
        when_down: str | None = None,
        patience: float | None = None,
        concurrency: int | None = None,
        max_bytes: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        weight: float = 1.0,
        name: str = "",
        base_dir: str | Path | None = None,
    ) -> Self:
        """Make the reward of a config's entry.

        Args:
            base_url, model: of an `Endpoint`, and so are `api_key_env` and what follows `max_tokens`.
            rubric, show, temperature, max_tokens, weight, name: of the reward.
            cache_file: see `JudgeCache`; relative to `base_dir`.
            base_dir: the config file's folder.

        Raises:
            ConfigError: one of them is wrong.
        """
        asked: dict[str, Any] = {"api_key_env": api_key_env, "seconds": seconds, "total_seconds": total_seconds}
        asked |= {"retries": retries, "first_wait": first_wait, "patience": patience, "concurrency": concurrency}
        asked |= {"max_bytes": max_bytes, "extra_body": extra_body, "when_down": when_down}
        endpoint = Endpoint(base_url, model, **_given(asked))
        judged: dict[str, Any] = {"rubric": rubric, "show": show, "temperature": temperature, "max_tokens": max_tokens}
        cache = None if cache_file is None else JudgeCache(Path(base_dir or ".") / cache_file)
        return cls(endpoint, weight=weight, name=name, cache=cache, **_given(judged))

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check before a run that the judge can be asked.

        Raises:
            ConfigError: its API key is not there.
        """
        if isinstance(self.judge.model, Endpoint):
            try:
                self.judge.model.check()
            except ConfigError as error:
                texts = (f"the reward {self.label!r} cannot be asked: {text}" for text in error.problems)
                raise ConfigError(*texts) from None

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Who judges, and whether the same question would be answered alike again."""
        about = self.judge.model.describe()
        who = about.get("model", type(self.judge.model).__name__)
        where = f" at {about['base_url']}" if "base_url" in about else ""
        notes = super().notices(scenarios)
        notes.append(f"{self.label}: {who}{where} judges; what it fails to judge leaves its group, and is counted")
        if not about.get("repeatable") and self.judge.cache.path is None:
            notes.append(
                f"{self.label} may judge the same conversation differently another time, a resumed run included: name "
                "a cache_file to keep what it said"
            )
        return notes

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards; a judge that is no `Endpoint` can be made in code alone."""
        kind = kind_of(type(self))
        if kind is None:
            return super().to_config()
        judge, model = self.judge, self.judge.model
        if not isinstance(model, Endpoint):
            return {**self._built_in_entry(kind, {}), "rebuildable": False}
        options = {**model.to_config(), "temperature": judge.temperature, "max_tokens": judge.max_tokens}
        options["rubric"] = None if self.rubric == self.default_rubric else self.rubric
        options["show"] = list(self.show) or None
        options["cache_file"] = None if judge.cache.path is None else str(judge.cache.path)
        return self._built_in_entry(kind, options)


def checked_rubric(rubric: str | Sequence[str], label: str) -> str:
    """A rubric as one text.

    Raises:
        ConfigError: there is nothing in it.
    """
    criteria = [rubric] if isinstance(rubric, str) else rubric
    if not isinstance(criteria, Sequence) or not all(isinstance(text, str) for text in criteria):
        raise ConfigError(f"the rubric of reward {label!r} is {rubric!r:.80}; it must be a text or a list of texts")
    if not "".join(criteria).strip():
        raise ConfigError(f"the rubric of reward {label!r} is empty; say in words what a good conversation is")
    return rubric if isinstance(rubric, str) else "\n".join(f"- {criterion}" for criterion in rubric)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
