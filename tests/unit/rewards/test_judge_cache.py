"""What is kept of a judge's words, and for how long."""

import sqlite3

import pytest

from stateset_agents.rewards.judge_cache import JudgeCache


def kept(cache, names="abcd"):
    return "".join(name for name in names if cache.get(name) is not None)


def test_memory_holds_the_newest_judgements_and_a_file_all(tmp_path):
    memory, file = JudgeCache(most=2), JudgeCache(tmp_path / "judged.sqlite", most=2)
    for name in "abac":  # a is judged again, so that b is the oldest
        for cache in (memory, file):
            cache.put(name, {"said": name})
    assert (kept(memory), kept(file)) == ("ac", "abc")
    assert memory.get("a") == {"said": "a"}
    assert kept(JudgeCache(tmp_path / "judged.sqlite")) == "abc"


def test_memory_in_place_of_a_file_that_cannot_be_used_is_bounded_too(tmp_path):
    with sqlite3.connect(tmp_path / "judged.sqlite") as table:
        table.execute("CREATE TABLE judgements (something_else TEXT)")
    table.close()
    cache = JudgeCache(tmp_path / "judged.sqlite", most=2)
    for name in "abcd":
        cache.put(name, {})
    assert kept(cache) == "cd"


def test_a_memory_that_holds_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 judgement"):
        JudgeCache(most=0)
