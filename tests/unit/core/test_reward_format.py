"""The format reward: JSON as strictly as a program reads it."""

import json
import socket
import time

import pytest

from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.reward import FormatReward
from stateset_agents.core.rewards.format import read_strictly
from stateset_agents.core.trajectory import ConversationTurn as Turn

ORDER = {
    "type": "object",
    "properties": {"order": {"type": "integer", "minimum": 1}, "status": {"enum": ["sent", "lost"]}},
    "required": ["order", "status"],
    "additionalProperties": False,
}
GOOD = '{"order": 7, "status": "sent"}'


async def score(reward, *replies):
    turns = [turn for reply in replies for turn in (Turn("user", "As JSON?"), Turn("assistant", reply))]
    return (await reward.evaluate(turns)).score


READ = {
    GOOD: True,
    f"\n {GOOD} \n": True,
    "[]": True,
    "{}": True,
    "": False,
    "sent": False,
    '"sent"': False,
    "7": False,
    "true": False,
    "null": False,
    f"Here you are: {GOOD}": False,
    f"```json\n{GOOD}\n```": False,
    f"{GOOD}{GOOD}": False,
    f"{GOOD} ": True,
    "{'order': 7}": False,
    '{"order": 7,}': False,
    '{"order": 7, "order": 8}': False,
    '{"order": NaN}': False,
    '{"order": -Infinity}': False,
    '{"order": 1e999}': False,
    '{"order": 7': False,
    "[" * 100_000: False,
    "[" * 33 + "]" * 33: False,
    "[" * 31 + "]" * 31: True,
    '{"a":' * 50_000 + "1" + "}" * 50_000: False,
    "[" + "1" * 5000 + "]": False,
    "[" + "1," * 60_000 + "1]": False,
}


@pytest.mark.parametrize(("reply", "good"), READ.items(), ids=[text[:24] for text in READ])
async def test_a_reply_is_one_json_document_and_nothing_else(reply, good):
    """Mutation: `json.loads` as it comes, which takes NaN and doubled keys, and raises on deep text."""
    assert await score(FormatReward(), reply) == float(good)


FITS = {
    GOOD: True,
    '{"order": 7}': False,
    '{"order": 0, "status": "sent"}': False,
    '{"order": "7", "status": "sent"}': False,
    '{"order": true, "status": "sent"}': False,
    '{"order": 7, "status": "sent", "note": ""}': False,
    "[]": False,
}


@pytest.mark.parametrize(("reply", "good"), FITS.items())
async def test_a_reply_fits_the_schema(reply, good):
    turns = [Turn("user", "?"), Turn("assistant", reply)]
    result = await FormatReward(json_schema=ORDER).evaluate(turns)
    assert (result.score, result.breakdown) == (float(good), {"json": 1.0, "schema": float(good)})


async def test_a_schema_may_allow_a_bare_value():
    assert await score(FormatReward(json_schema={"type": "integer"}), "7") == 1.0


AROUND = {
    f"Here you are: {GOOD} Anything else?": True,
    f"```json\n{GOOD}\n```": True,
    GOOD: True,
    f"Not {{this}}, but {GOOD}": True,
    f"{GOOD} or {GOOD}": False,
    f'{GOOD} or {{"order": 8, "status": "lost"}}': False,
    f"[{GOOD}": True,
    "none": False,
    "{" * 100_000: False,
    "{" * 30 + GOOD: False,
}


@pytest.mark.parametrize(("reply", "good"), AROUND.items(), ids=[text[:24] for text in AROUND])
async def test_with_text_allowed_there_must_still_be_one_document(reply, good):
    """Mutation: the first of several documents counts."""
    begun = time.perf_counter()
    assert await score(FormatReward(json_schema=ORDER, allow_text=True), reply) == float(good)
    assert time.perf_counter() - begun < 2


async def test_the_last_reply_is_judged_or_every_one():
    replies = ("Which order?", GOOD, GOOD, "Bye!")
    assert await score(FormatReward(), *replies) == 0.0
    assert await score(FormatReward(), *replies[:3]) == 1.0
    turns = [turn for reply in replies for turn in (Turn("user", "?"), Turn("assistant", reply))]
    result = await FormatReward(judged="every").evaluate(turns)
    assert (result.score, result.turn_rewards) == (0.5, [0.0, 0.25, 0.25, 0.0])
    assert (await FormatReward().evaluate(turns[:6])).turn_rewards == [0.0, 0.0, 1.0]
    assert (await FormatReward().evaluate([])).score == (await FormatReward(judged="every").evaluate([])).score == 0.0


async def test_what_is_said_to_a_tool_is_no_reply():
    turns = [Turn("user", "?"), Turn("assistant", GOOD), Turn("tool", "{}"), Turn("assistant", "Done.")]
    assert (await FormatReward().evaluate(turns)).score == 0.0


@pytest.mark.parametrize(
    ("schema", "reply"),
    [
        ({"items": {"multipleOf": 0.1}}, "[" + "1" * 4000 + "]"),
        ({"items": {"multipleOf": 0.01}}, "[1e308]"),
        ({"properties": {"a": {"$ref": "#"}}}, '{"a":' * 31 + "{}" + "}" * 31),
        ({"uniqueItems": True}, json.dumps([[i] for i in range(500)] + [[0]])),
    ],
)
async def test_no_reply_makes_the_reward_raise(schema, reply):
    assert await score(FormatReward(json_schema=schema), reply) in (0.0, 1.0)


async def test_a_schema_may_refer_to_its_own_parts():
    schema = {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["id"]}}}
    reward = FormatReward(json_schema={**schema, "$ref": "#/$defs/node"})
    assert await score(reward, '{"id": 1, "next": {"id": 2}}') == 1.0
    assert await score(reward, '{"id": 1, "next": {}}') == 0.0


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objct"}, r"no JSON Schema: at \$\.type"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "may refer to its own parts only"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "may refer to its own parts only"),
        ({"$ref": "#/$defs/none"}, 'refers to "#/\\$defs/none", which it does not have'),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"type": "object", "allOf": [{"$ref": "#"}]}, "refers to itself without end"),
        ({}, "must be a JSON Schema"),
        ([], "must be a JSON Schema"),
    ],
)
def test_a_schema_that_is_none_or_leads_outside_is_refused_when_the_reward_is_made(schema, message, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("it opened a socket"))
    with pytest.raises(ConfigError, match=message):
        FormatReward(json_schema=schema)


async def test_a_schema_from_a_file_is_written_out_in_the_config(tmp_path):
    file = tmp_path / "order.json"
    file.write_text(json.dumps(ORDER), encoding="utf-8")
    reward = FormatReward(schema_file=file)
    assert reward.to_config()["json_schema"] == ORDER
    assert await score(reward, GOOD) == 1.0
    with pytest.raises(DataError, match="does not exist"):
        FormatReward(schema_file=tmp_path / "none.json")
    with pytest.raises(ConfigError, match="not both"):
        FormatReward(json_schema=ORDER, schema_file=file)
    with pytest.raises(ConfigError, match="judged is 'all'"):
        FormatReward(judged="all")


def test_reading_strictly_says_why_not():
    assert read_strictly('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    wrong = {'{"a":1,"a":1}': "twice", "[NaN]": "no JSON", "[1e400]": "too large", "[" * 40: "Expecting"}
    for text, reason in wrong.items():
        with pytest.raises(ValueError, match=reason):
            read_strictly(text)
