"""A data file is read as it is, or refused with every line that is wrong."""

import json

import pytest

from stateset_agents.core.errors import DataError
from stateset_agents.core.records import digest, read_records

HI = {"role": "user", "content": "Hi"}
TOLD = {"role": "system", "content": "Be brief."}
HELLO = {"role": "assistant", "content": "Hello"}
BYE = {"role": "assistant", "content": "Bye"}


def written(tmp_path, *lines):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return file


def refusal(file, *, pairs=False):
    with pytest.raises(DataError) as caught:
        read_records(file, pairs=pairs)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_a_conversation_is_answered_from_its_first_assistant_turn_on(tmp_path):
    file = written(tmp_path, {"messages": [TOLD, HI, HELLO, HI, BYE]}, "", {"messages": [HI, BYE]})
    one, two = read_records(file, pairs=False)
    assert (one.prompt, one.answers) == ((TOLD, HI), ((HELLO, HI, BYE),))
    assert (two.prompt, two.answers) == ((HI,), ((BYE,),))
    assert two.place == f"{file}, line 3"


def test_both_ways_to_write_a_pair_are_the_same(tmp_path):
    texts = written(tmp_path, {"messages": [HI, HELLO, HI], "chosen": "Hello", "rejected": "Bye"})
    (one,) = read_records(texts, pairs=True)
    lists = written(tmp_path, {"prompt": [HI, HELLO, HI], "chosen": [HELLO], "rejected": [BYE]})
    (two,) = read_records(lists, pairs=True)
    assert one == two
    assert (one.prompt, one.answers) == ((HI, HELLO, HI), ((HELLO,), (BYE,)))


def test_a_preferred_answer_may_go_on_for_several_turns(tmp_path):
    file = written(tmp_path, {"prompt": [HI], "chosen": [HELLO, HI, BYE], "rejected": [BYE]})
    assert read_records(file, pairs=True)[0].answers == ((HELLO, HI, BYE), (BYE,))


@pytest.mark.parametrize(("whole", "begin", "lines", "each"), [(False, 2, 12, "."), (True, 1, 26, ".[]")])
def test_pretty_printed_json_is_told_once_with_the_way_to_lines(tmp_path, whole, begin, lines, each):
    """Mutation: one problem for each line that is no JSON by itself."""
    record = {"messages": [HI, HELLO]}
    rest = json.dumps([record, record] if whole else record, indent=2)
    file = written(tmp_path, *([] if whole else [record]), *rest.splitlines())
    told = refusal(file)
    assert told.startswith(
        f"data file {file} looks like pretty-printed JSON: the value that begins in line {begin} goes"
    )
    assert f"over {lines} lines, and a JSONL file has one object in each line.\n" in told
    assert told.endswith(f"jq -c '{each}' data.jsonl")
    assert told.count("\n") == 1


def test_a_text_with_something_behind_it_is_no_pretty_printed_json(tmp_path):
    assert "line 1: not valid JSON" in refusal(written(tmp_path, '"messages" and', "more"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ('{"messages": [], "messages": []}', "line 2: the key 'messages' appears twice"),
        (json.dumps({"messages": [HI]}), "line 2: messages ends with the user; the last message must be the assistant"),
        (json.dumps({"messages": [HI, HELLO], "score": 1}), "line 2 has the unknown key 'score'"),
        (json.dumps({"messages": [HELLO]}), "messages[0].role is 'assistant', where 'user' is due"),
        (json.dumps({"messages": [HI, TOLD, HELLO]}), "messages[1].role is 'system', where 'assistant' is due"),
        (json.dumps({"messages": [HI, {"role": "tool", "content": "x"}]}), "messages[1].role is 'tool'"),
        (json.dumps({"messages": [HI, {"role": "assistant", "content": ""}]}), "messages[1].content is ''"),
        (
            json.dumps({"messages": [HI, {"role": "assistant", "content": "\ud83d"}]}),
            "messages[1].content holds half of a surrogate pair",
        ),
        (json.dumps({"messages": [HI], "chosen": "a", "rejected": "b"}), "line 2 has the unknown key 'chosen'"),
    ],
)
def test_a_malformed_conversation_is_refused_with_its_line(tmp_path, line, words):
    assert words in refusal(written(tmp_path, {"messages": [HI, HELLO]}, line))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": [HI, HELLO]}, "messages ends with the assistant; the last message must be the user's"),
        ({"messages": [HI], "chosen": "a"}, "line 1: rejected is None"),
        ({"messages": [HI], "chosen": " ", "rejected": "b"}, "chosen is ' '; it must be text that is not empty"),
        ({"messages": [HI], "chosen": "\udc00", "rejected": "b"}, "line 1: chosen holds half of a surrogate pair"),
        ({"messages": [HI], "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
        ({"messages": [HI], "chosen": "Bye", "rejected": [BYE]}, "chosen and rejected are the same"),
        ({"messages": [HI], "prompt": [HI], "chosen": "a", "rejected": "b"}, "both messages and prompt"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "prompt is 'Hi'; it must be a list of messages"),
        ({"prompt": [HI], "chosen": [HI], "rejected": [BYE]}, "chosen[0].role is 'user', where 'assistant' is due"),
        ({"prompt": [HI], "chosen": [HELLO, HI], "rejected": [BYE]}, "chosen ends with the user"),
        ({"prompt": [HI], "chosen": [TOLD, HELLO], "rejected": [BYE]}, "chosen[0].role is 'system'"),
        ({"chosen": [HI, HELLO], "rejected": [HI, BYE]}, "messages is None"),
        ({"messages": [HI], "chosen": "a", "rejected": "b", "margin": 2}, "unknown key 'margin'"),
    ],
)
def test_a_malformed_pair_is_refused_with_its_line(tmp_path, record, words):
    assert words in refusal(written(tmp_path, record), pairs=True)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    text = refusal(written(tmp_path, "{", {"messages": [HI, HELLO]}, {"messages": [HI]}, "7"))
    assert [line.partition(": ")[0].rpartition(", ")[2][:6] for line in text.splitlines()] == [
        "line 1",
        "line 3",
        "line 4",
    ]


def test_files_that_hold_nothing_or_no_text_are_refused(tmp_path):
    assert "holds no record" in refusal(written(tmp_path, "", " "))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe{}")
    assert "is not UTF-8 text" in refusal(tmp_path / "bytes.jsonl")
    assert "does not exist" in refusal(tmp_path / "none.jsonl")


def test_a_digest_is_that_of_the_contents(tmp_path):
    """Mutation: places in it, so that a moved file would be another one."""
    one = read_records(written(tmp_path, {"messages": [HI, HELLO]}, {"messages": [HI, BYE]}), pairs=False)
    moved = read_records(written(tmp_path, "", {"messages": [HI, HELLO]}, {"messages": [HI, BYE]}), pairs=False)
    swapped = read_records(written(tmp_path, {"messages": [HI, BYE]}, {"messages": [HI, HELLO]}), pairs=False)
    assert digest(one) == digest(moved) != digest(swapped)


CALLS = [{"name": "price", "arguments": {"of": "tea"}}]
TALK = [
    {"role": "user", "content": "How much?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": "$3"},
    {"role": "assistant", "content": "It costs $3."},
]


def test_a_conversation_may_have_calls_of_tools(tmp_path):
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps({"messages": TALK}))
    (record,) = read_records(file, pairs=False)
    assert record.answers[0][0]["tool_calls"] == CALLS
    assert [message["role"] for message in record.answers[0]] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([TALK[0], TALK[2], TALK[3]], "messages[1].role is 'tool', where 'assistant' is due"),
        ([*TALK[:3], TALK[0], TALK[3]], "messages[3].role is 'user', where 'assistant' is due"),
        ([TALK[0], {**TALK[1], "tool_calls": []}, *TALK[2:]], "messages[1].tool_calls is []"),
        ([TALK[0], {**TALK[1], "tool_calls": ["price"]}, *TALK[2:]], "messages[1].tool_calls[0] is 'price'"),
        ([{**TALK[0], "tool_calls": CALLS}, TALK[3]], "messages[0] has tool_calls; that is for the assistant"),
    ],
)
def test_calls_in_the_wrong_place_are_told(tmp_path, messages, told):
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps({"messages": messages}))
    with pytest.raises(DataError) as caught:
        read_records(file, pairs=False)
    assert told in str(caught.value)
