"""A judge in a config: what an entry says of it, and what a run says about it.

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
from typing import Any, Self

from ..core.errors import ConfigError
from ..engines.endpoint import Endpoint
from .judge_cache import JudgeCache
from .judging import Judge


class JudgeEntry:
    """The side of a judge's reward that a config sees. The class takes `model`, and the rest by keyword."""

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
        asked |= {"max_bytes": max_bytes, "extra_body": extra_body}
        endpoint = Endpoint(base_url, model, **_given(asked))
        judged: dict[str, Any] = {"rubric": rubric, "show": show, "temperature": temperature, "max_tokens": max_tokens}
        cache = None if cache_file is None else JudgeCache(Path(base_dir or ".") / cache_file)
        return cls(endpoint, weight=weight, name=name, cache=cache, **_given(judged))  # type: ignore[call-arg]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def judge_options(judge: Judge, rubric: str, show: Sequence[str], default_rubric: str) -> dict[str, Any] | None:
    """The options that make a judge again; None for a model that no entry can name."""
    if not isinstance(judge.model, Endpoint):
        return None
    options: dict[str, Any] = {**judge.model.to_config(), "temperature": judge.temperature}
    options["max_tokens"] = judge.max_tokens
    if rubric != default_rubric:
        options["rubric"] = rubric
    if show:
        options["show"] = list(show)
    if judge.cache.path is not None:
        options["cache_file"] = str(judge.cache.path)
    return options


def checked_rubric(rubric: str | Sequence[str], label: str) -> str:
    """A rubric as one text.

    Raises:
        ConfigError: there is nothing in it.
    """
    text = rubric if isinstance(rubric, str) else "\n".join(f"- {criterion}" for criterion in rubric)
    if not text.strip():
        raise ConfigError(f"the rubric of reward {label!r} is empty; say in words what a good conversation is")
    return text


def require_judge(judge: Judge, label: str) -> None:
    """Check before a run that the judge can be asked.

    Raises:
        ConfigError: its API key is not there.
    """
    if isinstance(judge.model, Endpoint):
        try:
            judge.model.check()
        except ConfigError as error:
            raise ConfigError(*(f"the reward {label!r} cannot be asked: {text}" for text in error.problems)) from None


def judge_notices(judge: Judge, label: str) -> list[str]:
    """Who judges, and whether the same question would be answered alike again."""
    about = judge.model.describe()
    who = about.get("model", type(judge.model).__name__)
    where = f" at {about['base_url']}" if "base_url" in about else ""
    notes = [f"{label}: {who}{where} judges; what it fails to judge leaves its group, and is counted"]
    if not about.get("repeatable") and judge.cache.path is None:
        notes.append(
            f"{label} may judge the same conversation differently another time, a resumed run included: name a "
            "cache_file to keep what it said"
        )
    return notes
