"""Programs of others that judge a server: of its OpenAPI document, its metrics, its streams."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from serving import Serving
from stateset_agents.api.access import Tokens
from stateset_agents.api.app import Door
from stateset_agents.api.limits import ServeLimits

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TOKEN = "right-token"
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'


def open_to_the_token(folder: Path, model: str = "stub://Hello there") -> Serving:
    limits = ServeLimits(max_conversations=100_000, max_waiting=1000)
    return Serving(folder, model, door=Door(tokens=Tokens([TOKEN])), limits=limits)


def test_schemathesis_finds_nothing_that_the_openapi_document_does_not_say(tmp_path: Path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    with open_to_the_token(tmp_path) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}", "--checks", "all"]
        ended = subprocess.run(
            [*command, "--max-examples", "60", "--seed", "1", "--no-color"],
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Tested: 11" in ended.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_takes_the_metrics(tmp_path: Path):
    with open_to_the_token(tmp_path) as server, httpx.Client(base_url=server.url) as http:
        http.headers["Authorization"] = f"Bearer {TOKEN}"
        place = http.post("/chat/start", json={}).headers["location"]
        http.post(f"{place}/message", json={"message": "Hi"})
        http.post(f"{place}/message", json={})
        answer = http.get("/metrics")
        told = http.get("/metrics", headers={"Accept": "application/json"}).json()
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=answer.text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert told["grpo_serve_generation_tokens_total"] == [{"labels": {}, "value": 7.0}]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_openais_client_for_node_reads_the_same(tmp_path: Path):
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai@latest"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm could not install openai: {installed.stderr[-200:]}")
    (tmp_path / "client.mjs").write_text((HERE / "openai_client.mjs").read_text())
    (tmp_path / "store").mkdir()
    with open_to_the_token(tmp_path / "store", f"stub://Hello there|{CALL}") as server:
        ended = subprocess.run(
            ["node", "client.mjs", f"{server.url}/v1", TOKEN],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout == "models, chat, stream, tools, errors, cancel\n"
