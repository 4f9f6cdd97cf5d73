import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from stateset_agents.api.conversation_log import ConversationLog, PersonalRedactor
from stateset_agents.core.errors import RunFolderError


def numbers_in(file: Path) -> list[int]:
    return [json.loads(line)["number"] for line in file.read_text().splitlines()]


def test_a_file_that_is_full_gives_way_to_another_and_the_oldest_is_dropped(tmp_path: Path):
    log = ConversationLog(tmp_path / "log", max_bytes=400, keep=2)
    for number in range(8):
        log.write("turn", "conv_x", number=number, text="x" * 60)
    log.close()
    kept = {file.name: numbers_in(file) for file in tmp_path.iterdir()}
    assert kept == {"log": [6, 7], "log.1": [4, 5], "log.2": [2, 3]}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())


def test_a_log_goes_on_where_it_stopped(tmp_path: Path):
    for number in range(2):
        log = ConversationLog(tmp_path / "log")
        log.write("turn", "conv_x", number=number)
        log.close()
    assert numbers_in(tmp_path / "log") == [0, 1]


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        ConversationLog(tmp_path / "file" / "log")


def test_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="cannot be written"):
        ConversationLog(tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_no_log_and_keeps_its_mode(tmp_path: Path):
    os.mkfifo(tmp_path / "log", 0o644)
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RunFolderError, match="cannot be written: it is no file"):
        ConversationLog(tmp_path / "log")
    os.close(reader)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644


def test_a_log_that_was_taken_away_begins_again_under_its_name(tmp_path: Path):
    log = ConversationLog(tmp_path / "folder" / "log")
    log.write("turn", "conv_x", number=0)
    (tmp_path / "folder" / "log").rename(tmp_path / "yesterday")
    log.write("turn", "conv_x", number=1)
    shutil.rmtree(tmp_path / "folder")
    log.write("turn", "conv_x", number=2)
    log.close()
    assert numbers_in(tmp_path / "yesterday") == [0]
    assert numbers_in(tmp_path / "folder" / "log") == [2]


def test_a_place_that_cannot_be_had_costs_lines_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    log = ConversationLog(tmp_path / "log", max_bytes=150, keep=1)
    log.write("turn", "conv_x", number=0)
    (tmp_path / "log.1" / "full").mkdir(parents=True)
    log.write("turn", "conv_x", number=1, text="x" * 60)
    assert "is lost" in caplog.text
    shutil.rmtree(tmp_path / "log.1")
    log.write("turn", "conv_x", number=2, text="x" * 60)
    log.close()
    assert (numbers_in(tmp_path / "log.1"), numbers_in(tmp_path / "log")) == ([0], [2])


def test_a_line_for_which_the_disk_has_no_room_leaves_no_part_of_itself(tmp_path: Path):
    log = ConversationLog(tmp_path / "log")
    log.write("turn", "conv_x", number=0)
    room = (tmp_path / "log").stat().st_size
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room + 50, before[1]))
    try:
        log.write("turn", "conv_x", number=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write("turn", "conv_x", number=2)
    log.close()
    assert numbers_in(tmp_path / "log") == [0, 2]


def test_a_line_that_is_lost_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    log = ConversationLog(tmp_path / "log")
    log.close()
    log.write("turn", "conv_x")
    assert "is lost" in caplog.text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("4111111111111111", "***"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("378282246310005", "***"),
        ("order 20261122 0001", "order 20261122 0001"),
        ("a@b.co", "***"),
        ("a@b", "a@b"),
        ("mail: x.y@z.example!", "mail: ***!"),
        ("@everybody", "@everybody"),
    ],
)
def test_addresses_and_card_numbers_are_hidden_and_other_numbers_are_not(text: str, clean: str):
    assert PersonalRedactor()(text) == clean


LONG = ["a@" * 50_000, "a." * 50_000 + "@", "1 " * 50_000, "a@b." + "c." * 50_000, "-" * 100_000]


@pytest.mark.parametrize("text", LONG)
def test_redacting_takes_time_in_proportion_to_the_text(text: str):
    redact = PersonalRedactor()
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 2
