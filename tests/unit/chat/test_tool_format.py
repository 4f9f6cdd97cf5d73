"""Reading calls: what is one, what was meant as one, and what is none."""

import pytest

from stateset_agents.chat.tool_format import FORMATS, MalformedCall
from stateset_agents.core.tool_calls import ToolCall

A = ToolCall("find", {"id": "A"})
B = ToolCall("find", {"id": "B"})
OBJECT_A, OBJECT_B = '{"name": "find", "arguments": {"id": "A"}}', '{"name": "find", "arguments": {"id": "B"}}'
BAD = "malformed"


def read(form, reply):
    return [BAD if isinstance(call, MalformedCall) else call for call in FORMATS[form].calls(reply)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("It costs $5.", []),
        ("", []),
        (f"<tool_call>\n{OBJECT_A}\n</tool_call>", [A]),
        (f"Let me see.\n<tool_call>{OBJECT_A}</tool_call>\n<tool_call>{OBJECT_B}</tool_call>", [A, B]),
        (f"<think>I call <tool_call>{OBJECT_B}</tool_call></think><tool_call>{OBJECT_A}</tool_call>", [A]),
        (f"<think>and then <tool_call>{OBJECT_B}</tool_call>", []),
        (f"<tool_call>{OBJECT_A}", [BAD]),
        (f"<tool_call>{OBJECT_A}<tool_call>{OBJECT_B}</tool_call>", [BAD, B]),
        ("<tool_call></tool_call>", [BAD]),
        (f"<tool_call>{OBJECT_A}{OBJECT_B}</tool_call>", [BAD]),
        (f"<tool_call>[{OBJECT_A}]</tool_call>", [BAD]),
        (f"<tool_call>```json\n{OBJECT_A}```</tool_call>", [BAD]),
        ("<tool_call>{'name': 'find', 'arguments': {}}</tool_call>", [BAD]),
        ('<tool_call>{"name": "find"}</tool_call>', [BAD]),
        ('<tool_call>{"name": "find", "arguments": "A"}</tool_call>', [BAD]),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', [BAD]),
        ('<tool_call>{"name": "find", "arguments": {}, "id": 1}</tool_call>', [BAD]),
        ('<tool_call>{"name": "find", "arguments": {"n": NaN}}</tool_call>', [BAD]),
        ('<tool_call>{"name": "find", "name": "drop", "arguments": {}}</tool_call>', [BAD]),
        ("<tool_call>" + '{"a":' * 5000 + "</tool_call>", [BAD]),
        ('<tool_call>{"name": "find", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>", [BAD]),
        (OBJECT_A, []),
    ],
)
def test_hermes(reply, expected):
    assert read("hermes", reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"name": "find", "parameters": {"id": "A"}}', [A]),
        (' \n{"name": "find", "parameters": {"id": "A"}}\n', [A]),
        ("It costs $5.", []),
        ('Sure: {"name": "find", "parameters": {"id": "A"}}', []),
        ('{"name": "find", "parameters": {"id": "A"}} Done.', [BAD]),
        ('{"name": "find", "parameters": {"id": "A"}}; {"name": "find", "parameters": {"id": "B"}}', [BAD]),
        (OBJECT_A, [BAD]),
        ("{", [BAD]),
        ('<think>Where is it?</think>\n{"name": "find", "parameters": {"id": "A"}}', [A]),
        ('<think>{"name": "find", "parameters": {"id": "A"}}', []),
    ],
)
def test_llama(reply, expected):
    assert read("llama", reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (OBJECT_A, [A]),
        (f"{OBJECT_A}\n{OBJECT_B}", [A, B]),
        (f"I look it up.\n  {OBJECT_A}", [A]),
        (f"I look it up: {OBJECT_A}", []),
        (f"{OBJECT_A} {OBJECT_B}", [BAD]),
        ('{"name": "find", "arguments": {"id": "A"}', [BAD]),
        ('{"name": "find",\n "arguments": {}}', [BAD]),
        ("{curly} words", [BAD]),
        ("", []),
    ],
)
def test_json_lines(reply, expected):
    assert read("json", reply) == expected


def test_the_model_is_told_what_a_call_must_look_like():
    (call,) = FORMATS["llama"].calls('{"name": "find"}')
    assert call.problem == 'a call must be {"name": "tool", "parameters": {...}} and nothing else'
    (call,) = FORMATS["json"].calls("{x")
    assert call.problem.startswith("the call is no valid JSON (Expecting property name")


@pytest.mark.parametrize(
    ("form", "text", "safe"),
    [
        ("hermes", "Hello <b", "Hello <b"),
        ("hermes", "Hello <tool", "Hello "),
        ("hermes", "Hello <", "Hello "),
        ("hermes", "Hello <tool_call>{", "Hello "),
        ("llama", "{", ""),
        ("llama", " ", ""),
        ("llama", "It {", "It {"),
        ("json", "It costs", "It costs"),
        ("json", "It costs\n", "It costs\n"),
        ("json", "It costs\n{", "It costs\n"),
        ("json", "It costs\n\nMore", "It costs\n\nMore"),
        ("json", "It costs\n\n", "It costs\n"),
        ("json", "It costs\n\n{", "It costs\n"),
        ("json", " ", ""),
        ("json", '{"na', ""),
    ],
)
def test_what_may_become_a_call_is_not_shown_yet(form, text, safe):
    assert FORMATS[form].speech(text) == safe


def test_a_tool_is_a_line_in_the_instructions():
    from stateset_agents.core.tools import Tool

    def find(order: str, size: int = 1):
        """Where an order is.

        Args:
            order: on the bill
        """

    def now():
        pass

    told = FORMATS["json"].instructions([Tool.of(find).definition(), Tool.of(now).definition()])
    assert told.splitlines() == [
        'Tools. To call one, answer only {"name": "tool", "arguments": {"parameter": "value"}}',
        "find(order: string, size?: integer): Where an order is. order: on the bill",
        "now()",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": ' + '{"a":' * 40 + "1" + "}" * 40 + "}",
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"n": 1e999}',
        '{"n": -1e999}',
    ],
)
def test_what_nothing_after_the_reader_could_bear_is_malformed(arguments):
    assert read("json", f'{{"name": "find", "arguments": {arguments}}}') == [BAD]


@pytest.mark.parametrize("form", ["hermes", "llama", "json"])
@pytest.mark.parametrize("text", ["a", "</tool_call>", "<tool_call>", "</think>", "a\u2028b\u0085c", '"\\', "{", "ä\n"])
def test_what_is_written_is_read_back(form, text):
    calls = [ToolCall("find", {"id": text})]
    assert FORMATS[form].calls(FORMATS[form].write(calls)) == calls


def test_a_template_that_writes_something_else_between_the_same_tags_is_not_read_as_json():
    from stateset_agents.chat.tool_format import format_of_template

    qwen = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    assert format_of_template(qwen, renders_tools=True).name == "hermes"
    for other in ("<tool_call>\n<function=x>\n arguments", "<tool_call>name<arg_key>arguments"):
        assert format_of_template(other, renders_tools=True).name == "json"
