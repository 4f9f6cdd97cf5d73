"""Tasks: what counts as done, who ends the conversation, and what may be wrong with a file of them."""

import json
from pathlib import Path

import pytest

from stateset_agents.core.environment import EpisodeStatus
from stateset_agents.core.environment.task import GO_ON, TaskEnvironment, as_tasks, load_tasks
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult
from stateset_agents.core.tools import as_tools
from stateset_agents.core.trajectory import ConversationTurn

SHIPPED = Path(__file__).parents[3] / "data" / "tasks.json"
VACATION = {
    "description": "Help user plan a vacation",
    "goal": "Create a complete vacation plan",
    "required_actions": [
        {"name": "destination", "keywords": ["where", "destination", "place"]},
        {"name": "budget", "keywords": ["cost", "how much"]},
    ],
}


async def play(environment, *replies):
    state = await environment.reset(environment.episode_scenarios()[0])
    heard = [await environment.get_initial_prompt(state.scenario)]
    for reply in replies:
        state, response, reward, done = await environment.step(state, reply)
        assert reward == 0.0
        heard.append(response.content if response else None)
        if done:
            break
    return state, heard


async def test_a_task_is_over_when_every_required_action_is_done():
    environment = TaskEnvironment([VACATION])
    state, heard = await play(environment, "Where do you want to go?", "What may it cost?", "never said")
    assert heard == ["I need your help. Help user plan a vacation. Create a complete vacation plan.", GO_ON, None]
    assert state.context["completed_actions"] == ["destination", "budget"]
    assert state.context["required_actions"] == ["destination", "budget"]
    assert (state.status, environment.success([], state)) == (EpisodeStatus.COMPLETED, True)


async def test_keywords_are_whole_words_of_the_reply_in_any_spelling():
    state, _ = await play(TaskEnvironment([VACATION]), "Nowhere is costly. HOW  MUCH?")
    assert state.context["completed_actions"] == ["budget"]


async def test_a_criterion_of_the_users_own_decides():
    seen = []

    def success_criteria(turns, context):
        seen.append((len(turns), list(context["completed_actions"])))
        return len(context.get("completed_actions", [])) >= 1

    state, _ = await play(TaskEnvironment([VACATION], success_criteria=success_criteria, max_turns=15), "Hi.", "Where?")
    assert state.status is EpisodeStatus.COMPLETED
    assert seen == [(2, []), (4, ["destination"])]


async def test_a_criterion_may_be_async():
    async def never(turns, context):
        return False

    state, _ = await play(TaskEnvironment([VACATION], never, max_turns=2), "Where?", "What does it cost?")
    assert state.status is EpisodeStatus.TIMEOUT


async def test_a_script_that_ends_before_the_task_is_a_failure_and_the_limit_is_none():
    scripted = {**VACATION, "user_responses": ["A", "B"]}
    environment = TaskEnvironment([scripted])
    state, heard = await play(environment, "Where?", "Hm.")
    assert (heard, state.status) == (["A", "B", None], EpisodeStatus.FAILED)
    assert environment.success([], state) is False
    state, _ = await play(TaskEnvironment([scripted], max_turns=1), "Where?")
    assert state.status is EpisodeStatus.TIMEOUT


def move(*steps):
    return ConversationTurn("assistant", "Done.", steps=list(steps))


def called(name, ok=True, **arguments):
    error = None if ok else ToolError.FAILED
    return [
        ConversationTurn("assistant", "{...}", tool_calls=(ToolCall(name, arguments),)),
        ConversationTurn("tool", "...", tool_result=ToolResult(name, error)),
    ]


REFUND = {"goal": "Refund", "required_actions": [{"name": "refunded", "tool": "refund", "arguments": {"order": "K2"}}]}


@pytest.mark.parametrize(
    ("steps", "done"),
    [
        (called("refund", order="K2"), True),
        (called("refund", order="K2", note="late"), True),
        (called("refund", order="K3"), False),
        (called("refund"), False),
        (called("look", order="K2"), False),
        (called("refund", ok=False, order="K2"), False),
        ([*called("refund", order="K3"), *called("refund", order="K2")], True),
        ([], False),
    ],
)
async def test_an_action_by_tool_is_done_by_a_call_that_succeeded(steps, done):
    state, _ = await play(TaskEnvironment([REFUND]), move(*steps))
    assert (state.context["completed_actions"] == ["refunded"]) is done


async def test_results_belong_to_their_calls_also_beside_malformed_ones():
    two = [
        ConversationTurn("assistant", "", tool_calls=(ToolCall("refund", {"order": "K2"}), ToolCall("look", {}))),
        ConversationTurn("tool", "", tool_result=ToolResult("", ToolError.MALFORMED)),
        ConversationTurn("tool", "", tool_result=ToolResult("refund", ToolError.FAILED)),
        ConversationTurn("tool", "", tool_result=ToolResult("look")),
    ]
    state, _ = await play(TaskEnvironment([REFUND]), move(*two))
    assert state.context["completed_actions"] == []


async def test_what_was_done_in_an_earlier_move_stays_done_and_the_old_state_is_left():
    environment = TaskEnvironment(
        [{**REFUND, "required_actions": [*REFUND["required_actions"], {"name": "b", "tool": "b"}]}]
    )
    first = await environment.reset()
    after, *_ = await environment.step(first, move(*called("refund", order="K2")))
    assert (first.context["completed_actions"], after.context["completed_actions"]) == ([], ["refunded"])
    last, _, _, done = await environment.step(after, move(*called("b")))
    assert (last.context["completed_actions"], done) == (["refunded", "b"], True)


async def test_a_check_sees_the_turns_and_is_asked_once_it_is_not_done():
    def polite(turns, context):
        return "please" in turns[-1].content.lower()

    task = {"goal": "Be polite", "required_actions": [{"name": "polite", "check": polite}]}
    state, _ = await play(TaskEnvironment([task]), "No.", "Please.")
    assert state.status is EpisodeStatus.COMPLETED


def test_the_shipped_tasks_load_and_say_that_keywords_are_easy_to_fool():
    environment = TaskEnvironment(load_tasks(SHIPPED))
    assert len(environment.episode_scenarios()) >= 3
    (notice,) = environment.notices()
    assert "required actions (first: 'plan-vacation: destination') are done as soon as a keyword is said" in notice
    assert TaskEnvironment([REFUND]).notices() == []
    said_or_done = {
        "goal": "Refund it",
        "required_actions": [{"name": "a", "tool": "refund", "keywords": ["refunded"]}],
    }
    assert "1 required actions (first: 'task-0: a')" in TaskEnvironment([said_or_done]).notices()[0]


async def test_a_task_without_actions_is_said_to_be_done_by_any_reply():
    environment = TaskEnvironment([REFUND, {"id": "table", "goal": "Book a table"}])
    (notice,) = environment.notices()
    assert "1 of 2 tasks (first: 'table') have no required_actions, so that any reply does them" in notice
    state, _ = await play(TaskEnvironment([{"goal": "Book a table"}]), "No.")
    assert state.status is EpisodeStatus.COMPLETED
    assert TaskEnvironment([{"goal": "Book a table"}], lambda turns, context: False).notices() == []


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("plan", r"tasks\[0\] is 'plan'; a task is a mapping like"),
        ({}, r"tasks\[0\] says nothing of what there is to do"),
        ({"goal": ""}, r"tasks\[0\].goal is ''; it must be text that is not empty"),
        ({"goal": 3}, r"tasks\[0\].goal is 3"),
        ({"goal": "a", "gaol": "b"}, r"tasks\[0\] has the unknown key 'gaol'; did you mean"),
        ({"goal": "a", "required_actions": "b"}, "required_actions is 'b'; it must be a list"),
        ({"goal": "a", "required_actions": ["b"]}, r"required_actions\[0\] is 'b'; it must be"),
        ({"goal": "a", "required_actions": [{"name": ""}]}, r"required_actions\[0\] is"),
        ({"goal": "a", "required_actions": [{"name": "b"}]}, "says not when it is done; give it keywords"),
        ({"goal": "a", "required_actions": [{"name": "b", "keyword": ["c"]}]}, "unknown key 'keyword'"),
        ({"goal": "a", "required_actions": [{"name": "b", "keywords": "c"}]}, "it must be a list of words"),
        ({"goal": "a", "required_actions": [{"name": "b", "keywords": ["!"]}]}, "it must be a list of words"),
        ({"goal": "a", "required_actions": [{"name": "b", "keywords": []}]}, "keywords is empty, so that no reply has"),
        ({"goal": "a", "required_actions": [{"name": "b", "tool": " "}]}, "tool is ' '; it must be the name of a tool"),
        ({"goal": "a", "required_actions": [{"name": "b", "tool": 3}]}, "tool is 3; it must be the name of a tool"),
        ({"goal": "a", "required_actions": [{"name": "b", "keywords": ["c"], "arguments": {}}]}, "beside a tool"),
        ({"goal": "a", "required_actions": [{"name": "b", "check": 3}]}, "check is 3; it must be a function or"),
        ({"goal": "a", "required_actions": [{"name": "b", "tool": "c"}] * 2}, "which another action has already"),
    ],
)
def test_a_task_that_is_wrong_is_told_with_its_place(task, told):
    with pytest.raises(DataError, match=told):
        as_tasks([task])


def test_all_wrong_tasks_at_once_and_files_that_are_none(tmp_path):
    with pytest.raises(DataError) as caught:
        as_tasks([{"goal": 1}, {"goal": "a"}, {"goal": 2}])
    assert len(str(caught.value).splitlines()) == 2
    for given, told in [([], "tasks is empty"), ("tasks", "it must be a list of tasks")]:
        with pytest.raises(DataError, match=told):
            as_tasks(given)
    file = tmp_path / "tasks.json"
    for data, told in [({"task": []}, "unknown key 'task'"), (3, "holds no list of tasks"), ([], "is empty")]:
        file.write_text(json.dumps(data))
        with pytest.raises(DataError, match=told):
            load_tasks(file)


def test_a_criterion_or_check_that_is_no_function():
    with pytest.raises(ConfigError, match="no built-in one of that name"):
        TaskEnvironment([VACATION], "task_completion")
    with pytest.raises(ConfigError, match="success_criteria is 3; it must be a function of"):
        TaskEnvironment([VACATION], 3)
    with pytest.raises(ConfigError, match=r'the check of .b. is "nowhere\.to_be_found"'):
        TaskEnvironment([{"goal": "a", "required_actions": [{"name": "b", "check": "nowhere.to_be_found"}]}])


def test_a_task_can_be_written_down_also_with_a_check_that_is_a_function():
    def polite(turns, context):
        return True

    environment = TaskEnvironment([{"goal": "Be polite", "required_actions": [{"name": "polite", "check": polite}]}])
    (written,) = [scenario.to_dict() for scenario in environment.episode_scenarios()]
    assert json.loads(json.dumps(written))["required_actions"][0]["check"].endswith("polite")


@pytest.mark.parametrize(
    ("made", "wanted", "done"),
    [
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (1.0, 1, True),
        ([1, {"a": True}], [1, {"a": 1}], False),
        ([1, {"a": True}], [1, {"a": True}], True),
        ([1], [1, 2], False),
        ("1", 1, False),
    ],
)
async def test_arguments_are_compared_as_json_compares_them(made, wanted, done):
    """Mutation: Python's `True == 1`."""
    task = {"goal": "g", "required_actions": [{"name": "a", "tool": "t", "arguments": {"x": wanted}}]}
    state, _ = await play(TaskEnvironment([task]), move(*called("t", x=made)))
    assert (state.context["completed_actions"] == ["a"]) is done


async def test_an_argument_that_is_wanted_to_be_null_is_not_one_that_is_missing():
    task = {"goal": "g", "required_actions": [{"name": "a", "tool": "t", "arguments": {"x": None}}]}
    for arguments, done in (({}, []), ({"x": None}, ["a"])):
        state, _ = await play(TaskEnvironment([task]), move(*called("t", **arguments)))
        assert state.context["completed_actions"] == done


NAMED = "stateset_agents.core.scenario.as_scenarios"


@pytest.mark.parametrize("wrong", [lambda: True, lambda turns: True, lambda turns, *, context: True, NAMED])
def test_a_function_that_cannot_take_turns_and_context_is_refused_when_the_environment_is_made(wrong):
    """Mutation: it is found out by the first reply, whose episode fails."""
    action = {"name": "a", "check": wrong}
    with pytest.raises(ConfigError, match=r"the check of 'a' is .*, which cannot be called with \(turns, context\): "):
        TaskEnvironment([{"goal": "g", "required_actions": [action]}])
    with pytest.raises(ConfigError, match=r"success_criteria is .*, which cannot be called with"):
        TaskEnvironment([VACATION], wrong)


def lookup(order: str, fast: bool = False) -> str:
    """Where an order is."""
    return order


def within(**schema):
    return {"name": "lookup", "function": lookup, "parameters": schema}


@pytest.mark.parametrize(
    ("action", "tool", "told"),
    [
        ({"tool": "lookup", "arguments": {"order": "A"}}, lookup, None),
        ({"tool": "lookup"}, lookup, None),
        ({"tool": "look_up", "keywords": ["order"]}, lookup, None),
        ({"tool": "look_up"}, lookup, "there is no tool 'look_up'. The agent's: lookup"),
        (
            {"tool": "lookup", "arguments": {"id": "A"}},
            lookup,
            "'lookup' does not take its arguments: .*'id' was",
        ),
        ({"tool": "lookup", "arguments": {"order": 5}}, lookup, "arguments: order: 5 is not of type 'string'"),
        ({"tool": "lookup", "arguments": {"fast": True}}, within(anyOf=[{"required": ["order"]}]), None),
    ],
)
def test_an_action_that_the_agents_tools_can_never_do_is_refused(action, tool, told):
    environment = TaskEnvironment([{"id": "x", "goal": "g", "required_actions": [{"name": "a", **action}]}])
    tools = as_tools([tool])
    if told is None:
        environment.require_tools(tools)
        return
    with pytest.raises(DataError, match=f"^task 'x': the action 'a' can never be done: .*{told}"):
        environment.require_tools(tools)


def test_an_environment_with_tools_of_its_own_is_not_asked_before_an_episode():
    class Stall(TaskEnvironment):
        def episode_tools(self, state):
            return [lookup]

    Stall([{"goal": "g", "required_actions": [{"name": "a", "tool": "lookup"}]}]).require_tools(())


async def test_a_tools_words_are_no_reply_where_the_context_ended_before_one():
    """Mutation: a keyword in a result does the action."""
    environment = TaskEnvironment([{**VACATION, "required_actions": VACATION["required_actions"][:1]}])
    state = await environment.reset()
    cut = [ConversationTurn("assistant", "{...}"), ConversationTurn("tool", "Where?", tool_result=ToolResult("t"))]
    assert (await environment.unfinished(state, cut)).context["completed_actions"] == []
