"""The ground-truth file: scenario id to the right answer.

    {"ground_truth": {
        "capital-of-france": "Paris",
        "opening-hours":     ["9 am", "09:00"],
        "loop-plan":         {"price": "$49 a month", "notice": ["30 days", "one month"]}}}

Invariant: an answer is a short literal wording, a list of accepted wordings, or a mapping of topics to these, all of
which are asked for. Whatever else the file holds is refused, all problems at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data_file import read_data_file
from ..errors import ConfigError, DataError
from ..facts import Fact, unmatchable_facts

GroundTruth = Fact | Mapping[str, Fact]
"""One answer, the accepted wordings of one, or one for each topic."""


def load_ground_truth(path: str | Path) -> dict[str, GroundTruth]:
    """Read a ground-truth file (JSON or YAML).

    Raises:
        DataError: it is missing, unreadable, does not parse or holds something else. Names file, line or entry.
    """
    path = Path(path)
    data = read_data_file(path, "ground-truth file", '{"ground_truth": {scenario id: answer, ...}}')
    if not isinstance(data, dict) or list(data) != ["ground_truth"] or not isinstance(data["ground_truth"], dict):
        raise DataError(f'{path} must be {{"ground_truth": {{scenario id: answer, ...}}}} and nothing else')
    return checked_ground_truth(data["ground_truth"], str(path), DataError)


def checked_ground_truth(
    entries: Mapping[str, GroundTruth], where: str, error: type[ConfigError] | type[DataError]
) -> dict[str, GroundTruth]:
    """Check the answers of all scenarios.

    Raises:
        ConfigError, DataError: as `error` says; one line for each problem.
    """
    if not isinstance(entries, Mapping) or not entries:
        raise error(f"{where}: no answers; it must map scenario ids to answers, not {entries!r}")
    problems = []
    for scenario, answer in entries.items():
        topics = answer if isinstance(answer, Mapping) else {"answer": answer}
        wrong = [topic for topic, fact in topics.items() if not _is_fact(fact)]
        wrong = wrong or unmatchable_facts(topics)
        if wrong or not topics:
            problems.append(
                f"{where}: the answer for {scenario!r} is {answer!r}; it must be text with a word or a number in it, a "
                "list of such texts, or a mapping of topics to these"
            )
    if problems:
        raise error("\n".join(problems))
    return dict(entries)


class Answers:
    """The right answers that a reward was given: one for each scenario, or one for all.

    Args:
        given: scenario id to answer, or one text for every scenario.
        file: a ground-truth file.
        label: of the reward, for messages.

    Raises:
        ConfigError: both are given, or an answer is none.
        DataError: the file is missing or malformed.
    """

    def __init__(self, given: str | Mapping[str, GroundTruth] | None, file: str | Path | None, label: str) -> None:
        if given is not None and file is not None:
            raise ConfigError(f"{label} takes ground_truth or ground_truth_file, not both")
        if isinstance(given, str):
            checked_ground_truth({"every scenario": given}, "ground_truth", ConfigError)
        self._for_all = given if isinstance(given, str) else None
        self._by_scenario: dict[str, GroundTruth] = {}
        if file is not None:
            self._by_scenario = load_ground_truth(file)
        elif given is not None and not isinstance(given, str):
            self._by_scenario = checked_ground_truth(given, "ground_truth", ConfigError)

    @property
    def given(self) -> str | Mapping[str, GroundTruth] | None:
        """What it was given, with a file's contents in place of the file."""
        return self._for_all if self._for_all is not None else self._by_scenario or None

    def of(self, context: Mapping[str, Any]) -> GroundTruth | None:
        """The answer for a scenario: the one given for its id, the one for all, or the scenario's own."""
        answer = self._by_scenario.get(str(context.get("scenario_id")), self._for_all)
        return context.get("ground_truth") if answer is None else answer


def _is_fact(fact: object) -> bool:
    return isinstance(fact, str) or (isinstance(fact, (list, tuple)) and all(isinstance(w, str) for w in fact))
