"""The classroom: what a pupil learns, and what its test is worth."""

from stateset_agents.agents import AgentConfig, AgentRuntime
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import EpisodeStatus
from stateset_agents.engines.stub import StubEngine
from stateset_agents.examples.tutoring_agent import AssessmentReward, Classroom, TutoringAgent, lessons
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

CARD = {"chess": {"the number of squares": "64", "the most powerful piece": "queen"}}


async def taught(*replies):
    agent = TutoringAgent(AgentConfig("stub://", max_new_tokens=200))
    tokenizer = load_tokenizer("tiny")
    codec = ChatCodec(tokenizer)
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, replies))
    (lesson,) = lessons(CARD)
    return agent, await play_episode(agent, Classroom(), lesson, AssessmentReward(), key="k")


async def test_a_pupil_that_was_told_both_facts_passes():
    _, episode = await taught("There are 64 squares.", "It is the queen.")
    assert (episode.reward, episode.success) == (1.0, True)
    assert episode.length == 2


async def test_a_fact_that_was_not_told_is_asked_for_once_more_and_then_given_up():
    agent, episode = await taught("Good question!", "Many.", "It is the queen.")
    questions = [turn.content for turn in episode.turns if turn.role == "user"]
    assert questions == ["What is the number of squares?"] * 2 + ["What is the most powerful piece?"]
    assert (episode.reward, episode.success) == (0.5, False)
    assert episode.assistant_turns[-1].metadata["asked"] == {questions[0]: 2, questions[2]: 1}
    assert agent.asked == {}  # the notes were a fork's


async def test_a_lecture_teaches_nothing():
    lecture = "Chess has 64 squares, and the queen is strong. " + "It is an old game. " * 5
    _, episode = await taught(lecture, lecture, lecture, lecture)
    assert episode.reward == 0.0


async def test_the_second_answer_to_a_question_is_given_with_a_note(monkeypatch):
    told = []

    async def respond(self, messages, context):
        told.append(context["agent_context"])
        return await real(self, messages, context)

    real = TutoringAgent._respond
    monkeypatch.setattr(TutoringAgent, "_respond", respond)
    await taught("Hm.", "64", "queen")
    assert ["did not understand" in one for one in told] == [False, True, False]


async def test_a_lesson_without_a_test_has_no_mark():
    state = await Classroom().reset(lessons(CARD)[0])
    result = await AssessmentReward().compute_reward([], {"state": state.context, "facts": CARD["chess"]})
    assert result.score is None
    assert state.status is EpisodeStatus.ONGOING
