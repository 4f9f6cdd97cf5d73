"""Every command of the documents about serving does what they say: `serving.md` is their text."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve_command import run, served, stub_checkpoint

DOCUMENT = (Path(__file__).parent / "serving.md").read_text()
CURLS = re.findall(r"^```bash\n(curl .*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
RESPONSES = [
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
]


def shape_of(value: Any) -> Any:
    """The keys of objects and the types of values."""
    if isinstance(value, dict):
        return {key: shape_of(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])]
    return type(value).__name__


def test_the_document_has_its_six_calls_and_three_responses():
    assert [re.search(r"http://localhost:8000(\S+)", curl)[1] for curl in CURLS] == [  # type: ignore[index]
        "/chat/start",
        "/chat/conv_abc123/message",
        "/chat/conv_abc123/history",
        "/chat/conv_abc123",
        "/health",
        "/metrics",
    ]
    assert len(RESPONSES) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_call_gets_the_documented_response(tmp_path: Path):
    with served(tmp_path, stub_checkpoint(tmp_path / "checkpoint")) as server:
        told: list[str] = []
        conversation = "conv_abc123"
        for curl in CURLS:
            command = curl.replace("http://localhost:8000", server.url).replace("conv_abc123", conversation)
            asked = command.rstrip().replace("curl ", "curl --silent --show-error --fail ", 1)
            ended = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            told.append(ended.stdout)
            if not told[1:]:
                conversation = json.loads(told[0])["conversation_id"]
    start, message, history, end, health, metrics = told
    assert [shape_of(json.loads(text)) for text in (start, message, history)] == [shape_of(one) for one in RESPONSES]
    assert conversation.startswith("conv_")
    assert json.loads(start)["message"] == RESPONSES[0]["message"]
    assert (json.loads(message)["turn_count"], json.loads(message)["status"]) == (2, "ongoing")
    assert [turn["role"] for turn in json.loads(history)["turns"]] == [turn["role"] for turn in RESPONSES[2]["turns"]]
    assert json.loads(end) == {"conversation_id": conversation, "status": "ended"}
    assert json.loads(health)["status"] == "ok"
    assert "# TYPE grpo_serve_requests_total counter" in metrics


def test_help_names_every_documented_option_with_its_default(tmp_path: Path):
    text = run("--help", cwd=tmp_path).stdout
    documented = re.findall(
        r"^(--[a-z-]+)(?: (TEXT|INTEGER))? +.*?(?:\[default: (.*)\])?$", DOCUMENT, flags=re.MULTILINE
    )
    assert len(documented) == 8
    for name, kind, default in documented:
        found = re.search(
            rf"^  {name}{' ' + kind if kind else ''}\b(.*?)(?=^  --|\Z)", text, flags=re.MULTILINE | re.DOTALL
        )
        assert found, name
        assert not default or re.search(rf"\[default:\s+{default}\b", found[1]), name


def test_the_documented_examples_are_taken(tmp_path: Path):
    for example in re.findall(r"^grpo-serve (\./.*?)(?:\n\n|\n```)", DOCUMENT, flags=re.MULTILINE | re.DOTALL):
        arguments = re.sub(r"\\\n", " ", example).replace('"', "").split()[1:]
        ended = run("no-such-checkpoint", *arguments, cwd=tmp_path)
        assert ended.returncode == 3, ended.stderr
        assert "no-such-checkpoint" in ended.stderr
