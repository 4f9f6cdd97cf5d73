"""Tools from functions, mappings and configs: what the model is told of them, and which arguments reach them."""

import dataclasses
from typing import Any, Literal

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.tools import BadArguments, Tool, as_tools, load_tool


def find_order(order_id: str, detail: Literal["short", "long"] = "short", limit: int | None = None):
    """Where an order is.

    Args:
        order_id: as printed
            on the bill.
    """
    return order_id, detail, limit


def calculator_tool(expression):
    return expression


def test_name_description_and_parameters_come_from_the_function():
    tool = Tool.of(find_order)
    assert tool.name == "find_order"
    assert tool.description == "Where an order is."
    assert tool.definition() == {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Where an order is.",
            "parameters": {
                "type": "object",
                "properties": {
                    "order_id": {"type": "string", "description": "as printed on the bill."},
                    "detail": {"type": "string", "enum": ["short", "long"], "default": "short"},
                    "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                },
                "required": ["order_id"],
                "additionalProperties": False,
            },
        },
    }


def test_the_form_of_the_documents_with_and_without_a_description():
    tool = Tool.of({"name": "calculator", "description": "Perform calculations", "function": calculator_tool})
    assert (tool.name, tool.description) == ("calculator", "Perform calculations")
    assert tool.check({"expression": "1+1"}) == {"expression": "1+1"}
    assert Tool.of({"name": "calculator", "function": calculator_tool}).description == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "order_id: Field required"),
        ({"order_id": 17}, "order_id: Input should be a valid string"),
        ({"order_id": None}, "order_id: Input should be a valid string"),
        ({"order_id": "A", "detail": "all"}, "detail: Input should be 'short' or 'long'"),
        ({"order_id": "A", "limit": "3"}, "limit: Input should be a valid integer"),
        ({"order_id": "A", "limit": True}, "limit: Input should be a valid integer"),
        ({"order_id": "A", "colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_arguments_that_do_not_fit_are_told_by_name(arguments, told):
    with pytest.raises(BadArguments, match=told):
        Tool.of(find_order).check(arguments)


def test_only_what_was_given_is_passed_so_that_the_functions_own_defaults_hold():
    assert Tool.of(find_order).check({"order_id": "A"}) == {"order_id": "A"}
    assert Tool.of(find_order).check({"order_id": "A", "limit": None}) == {"order_id": "A", "limit": None}


def test_parameters_may_have_names_that_a_schema_library_keeps_for_itself():
    def odd(schema: str, json: int, model_config: str = "", _hidden: int = 0):
        return schema

    arguments = {"schema": "s", "json": 1, "model_config": "m", "_hidden": 2}
    assert Tool.of(odd).check(arguments) == arguments


def test_free_keywords_and_structured_parameters():
    @dataclasses.dataclass
    class Address:
        city: str

    def send(to: Address, **options: Any):
        return to, options

    checked = Tool.of(send).check({"to": {"city": "Ulm"}, "fast": True})
    assert checked == {"to": Address("Ulm"), "fast": True}


def test_methods_lambdas_and_callable_objects_are_functions_too():
    class Shop:
        def price(self, of: str) -> int:
            """Price of a thing."""
            return 3

        def __call__(self, of: str) -> int:
            return 4

    assert Tool.of(Shop().price).check({"of": "tea"}) == {"of": "tea"}
    assert Tool.of({"name": "shop", "function": Shop()}).check({"of": "tea"}) == {"of": "tea"}
    assert Tool.of({"name": "twice", "function": lambda text: text * 2}).check({"text": "a"}) == {"text": "a"}


GIVEN = {"properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"], "additionalProperties": False}


def test_a_given_schema_is_what_is_checked():
    tool = Tool.of({"name": "t", "function": lambda **k: k, "parameters": GIVEN})
    assert tool.parameters == {"type": "object", **GIVEN}
    assert tool.check({"a": 2}) == {"a": 2}
    for wrong, told in [
        ({}, "'a' is a required"),
        ({"a": 0}, "a: 0 is less"),
        ({"a": 1, "b": 1}, "'b' was unexpected"),
    ]:
        with pytest.raises(BadArguments, match=told):
            tool.check(wrong)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, r"tools\[0\] is 3; it must be a function, or"),
        ({"name": "t"}, r"tools\[0\] is .*it must be a function"),
        ({"name": "a b", "function": print}, "called 'a b'; a name has letters"),
        ({"name": "x" * 65, "function": calculator_tool}, "a name has letters"),
        ({"name": "t", "function": calculator_tool, "desc": "d"}, "unknown key 'desc'. Known: name, description"),
        ({"name": "t", "function": calculator_tool, "description": 3}, r"^tools\[0\] \(t\): its description is 3"),
        (lambda text: text, "called '<lambda>'"),
        ({"name": "t", "function": lambda *texts: texts}, r"tools\[0\] \(t\): its parameter 'texts' has no"),
        ({"name": "t", "function": lambda text, /: text}, r"tools\[0\] \(t\): its parameter 'text' has no"),
        ({"name": "t", "function": calculator_tool, "parameters": []}, "they must be the JSON Schema of an object"),
        ({"name": "t", "function": calculator_tool, "parameters": {"type": "array"}}, "JSON Schema of an object"),
        ({"name": "t", "function": calculator_tool, "parameters": {"required": "x"}}, "is no JSON Schema"),
        ({"name": "t", "function": calculator_tool, "sequential": 1}, r"tools\[0\] \(t\): sequential is 1"),
        (
            {"name": "t", "function": calculator_tool, "parameters": {"properties": {"sum": {}}}},
            r"tools\[0\] \(t\): its `parameters` name 'sum', which the function does not take; it takes expression",
        ),
        (
            {"name": "t", "function": lambda x, /: x, "parameters": {"properties": {"x": {}}}},
            "does not take; it takes nothing by name",
        ),
        (
            {"name": "t", "function": lambda a: a, "parameters": {"properties": {"a": {"$ref": "http://x/y"}}}},
            "may refer to its own parts only",
        ),
    ],
)
def test_what_is_no_tool_is_refused_with_its_place(given, told):
    with pytest.raises(ConfigError, match=told):
        as_tools([given])


def test_a_type_that_json_lacks_is_refused_with_the_way_out():
    class Handle:
        pass

    def use(handle: Handle):
        return handle

    with pytest.raises(ConfigError, match="annotate them with types that JSON has, or give the tool's JSON Schema"):
        Tool.of(use)


def test_all_problems_at_once_and_no_name_twice():
    with pytest.raises(ConfigError) as caught:
        as_tools([1, find_order, find_order, 2])
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="it must be a list of functions"):
        as_tools({"name": "t"})


def test_a_config_names_functions_and_only_those_it_may():
    tool = load_tool({"name": "calculator", "description": "Sums", "function": "calculator_function"})
    assert tool.function(expression="2+3") == "5"
    with pytest.raises(ConfigError, match=r"no built-in tool of that name\. Known: calculator_function"):
        load_tool({"name": "c", "function": "calculator_funktion"})
    for wrong in ("os..system", "a;b.c", "../x.y"):
        with pytest.raises(ConfigError, match="it must be a dotted path"):
            load_tool({"name": "c", "function": wrong})


def given(schema):
    return Tool.of({"name": "t", "function": lambda a: a, "parameters": schema})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, 'refers to "#/\\$defs/none", which it does not have'),
        ({"properties": {"a": {"$dynamicRef": "http://127.0.0.1:9/x"}}}, "may refer to its own parts only"),
        ({"allOf": [{"$ref": "#"}]}, "refers to itself without end"),
    ],
)
def test_a_schema_that_no_arguments_could_be_held_against_is_refused_when_the_tool_is_made(schema, message):
    """Mutation: the first call finds out, and its episode fails."""
    with pytest.raises(ConfigError, match=message):
        given(schema)


def test_arguments_that_cannot_be_compared_are_bad_ones():
    """A number of 400 digits divided by 0.1 overflows. Mutation: the error goes on into the episode."""
    tool = given({"properties": {"a": {"multipleOf": 0.1}}})
    with pytest.raises(BadArguments, match="cannot be compared with the schema"):
        tool.check({"a": int("1" * 400)})
    assert tool.check({"a": 3}) == {"a": 3}
