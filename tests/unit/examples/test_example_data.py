"""What the examples learn from and are measured with."""

import json
import re

from stateset_agents.core.records import read_records
from stateset_agents.core.shipped import shipped
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.examples import custom_reward, llm_judge, quick_start, tool_agent, tutoring_agent
from stateset_agents.rewards import LLMJudgeReward


def test_nothing_that_is_held_out_is_trained_on():
    for trained, held_out in (
        (quick_start.SHELF, quick_start.HELD_OUT),
        (tool_agent.SALES, tool_agent.HELD_OUT),
        (tutoring_agent.LESSONS, tutoring_agent.HELD_OUT),
        (custom_reward.OPENINGS, custom_reward.HELD_OUT),
        (llm_judge.QUESTIONS, llm_judge.HELD_OUT),
    ):
        assert len(held_out) >= 6  # fewer allow no verdict
        assert not set(trained) & set(held_out)
        assert not {str(value) for value in trained.values()} & {str(value) for value in held_out.values()}


def test_the_recorded_sums_are_right_and_are_about_other_things():
    records = read_records(shipped(tool_agent.DEMONSTRATIONS), pairs=False)
    assert len(records) == 24
    for record in records:
        count, things, price = re.fullmatch(
            r"What do (\d+) (\w+) at \$(\d+) cost\?", record.prompt[-1]["content"]
        ).groups()
        call, result, said = record.answers[0]
        assert call["tool_calls"] == [{"name": "calculator", "arguments": {"expression": f"{count} * {price}"}}]
        assert result["content"] == str(int(count) * int(price))
        assert said["content"] == f"The {things} cost ${result['content']}."
        assert things not in {*tool_agent.SALES, *tool_agent.HELD_OUT}
        assert (int(count), int(price)) not in {*tool_agent.SALES.values(), *tool_agent.HELD_OUT.values()}


def test_right_answers_of_the_sums():
    answers = {sale.id: sale.ground_truth for sale in tool_agent.sales(tool_agent.HELD_OUT)}
    assert answers["pots"] == "145"
    assert answers["nails"] == "270"


async def test_the_stand_in_judge_grades_by_words_alone():
    reward = LLMJudgeReward(llm_judge.StubJudge(), llm_judge.RUBRIC)

    async def grade(words):
        turns = [ConversationTurn("user", "Why?"), ConversationTurn("assistant", " ".join(["word"] * words))]
        return (await reward.evaluate(turns)).score

    assert [await grade(words) for words in (5, 20, 4, 23, 1, 40)] == [1.0, 1.0, 0.95, 0.85, 0.8, 0.0]


async def test_brevity_and_asking_back_by_hand():
    def reply(text):
        return [ConversationTurn("user", "Hello."), ConversationTurn("assistant", text)]

    brevity = custom_reward.Brevity()
    words = {2: 0.0, 3: 1.0, 15: 1.0, 18: 0.8, 30: 0.0, 50: 0.0}
    for count, score in words.items():
        assert abs((await brevity.evaluate(reply(" ".join(["w"] * count)))).score - score) < 1e-9
    assert (await custom_reward.asks_back.evaluate(reply("Which one? "))).score == 1.0
    assert (await custom_reward.asks_back.evaluate(reply("Which one? This."))).score == 0.0


def test_the_facts_of_a_lesson_are_what_the_tutor_is_told():
    for lesson in tutoring_agent.lessons(tutoring_agent.HELD_OUT):
        assert all(f"{name}: {fact}" in lesson.agent_context for name, fact in lesson.facts.items())
        assert json.dumps(lesson.to_dict())
