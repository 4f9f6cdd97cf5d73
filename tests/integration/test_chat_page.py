"""The chat page in a real Chromium against the real server: what people do there, and what must not happen to them."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from accessibility import axe_core, found_wrong
from attacks import HARMED, TEXTS
from browser import Browser

MISSING = [name for name in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(Browser.found() is None, reason="Chromium is not installed (apt-get install chromium)"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
AS_INSTALLED = "import sys; sys.argv[0] = 'grpo-serve'; from stateset_agents.cli.serve import main; main()"
SERVE = [sys.executable, "-c", AS_INSTALLED]
CALL = 'Let me see.%0A{"name": "calculator", "arguments": {"expression": "17*3"}}'
ANSWERS = f"stub://{CALL}|17 times 3 is 51.|You are welcome."
TOOL_AGENT = {
    "agent__type": "tool",
    "agent__tools": [{"name": "calculator", "function": "calculator_function"}],
    "agent__max_new_tokens": 300,
    "rewards": [{"type": "helpfulness"}],
}


class Served:
    """A server that is ready, on the port that it chose or was given."""

    def __init__(self, folder, *arguments, port=0, **env):
        self._log = (folder / "serve.log").open("a")
        self._process = subprocess.Popen(
            [*SERVE, *arguments, "--port", str(port), "--no-gpu"],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        said = self._process.stdout.readline()
        found = re.search(r"http://localhost:(\d+)", said)
        assert found, said + (folder / "serve.log").read_text()
        self.port, self.url = int(found[1]), found[0]
        end = time.monotonic() + 60
        while self.get("/readyz")[0] != 200:
            assert time.monotonic() < end, (folder / "serve.log").read_text()
            time.sleep(0.05)

    def get(self, path, method="GET"):
        """Status, headers and text; 0 while nobody listens."""
        asked = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(asked) as response:  # noqa: S310
                return response.status, dict(response.headers), response.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, dict(refused.headers), ""
        except urllib.error.URLError:
            return 0, {}, ""

    def kill(self):
        self._end(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end(signal.SIGTERM)

    def _end(self, number):
        self._process.send_signal(number)
        self._process.communicate(timeout=40)
        self._log.close()


@pytest.fixture(scope="module")
def browser():
    with Browser(Browser.found()) as browser:
        yield browser


@pytest.fixture(autouse=True)
def quiet(browser):
    """Nothing may be thrown, logged as an error or reported against the security policy, unless a test expects it."""
    browser.problems.clear()
    yield
    browser.run("sessionStorage.clear()")
    assert browser.problems == []


def run_of(work, model, **changes):
    work.write(agent__model_name=model, training__num_episodes=4, **changes)
    ended = work.train()
    assert ended.code == 0, ended.err
    return work.path


def turns(browser):
    """Who and what of every turn, without the names above them."""
    return browser.run(
        "[...document.querySelectorAll('#turns > li')].map(li => [li.className, "
        "[...li.querySelectorAll('.said')].map(said => said.textContent).join(' / ')])"
    )


def opened(browser, served, **how):
    browser.go(served.url + "/", **how)
    browser.until("document.querySelectorAll('#turns > li').length >= 1")


def said(browser, text):
    count = len(turns(browser))
    browser.type(text)
    browser.press("Enter")
    browser.until(f"document.querySelectorAll('#turns > li').length === {count + 2}")
    browser.until("!document.querySelector('[aria-busy]')")


def test_a_conversation_by_keyboard_alone_and_the_same_after_a_reload(work, browser):
    with Served(run_of(work, ANSWERS, **TOOL_AGENT), "outputs", "--config-file", "run.json") as served:
        opened(browser, served)
        assert browser.run("document.title") == "outputs"
        browser.type("What is")
        browser.press("Enter", shift=True)
        said(browser, "17 * 3?")
        assert turns(browser) == [
            ["assistant", "Hello! How can I help you today?"],
            ["user", "What is\n17 * 3?"],
            ["assistant", "Let me see. / 17 times 3 is 51."],
        ]
        (call,) = browser.run("[...document.querySelectorAll('details')].map(one => one.textContent)")
        assert call == 'Called calculatorexpression: "17*3"51'
        said(browser, "Thanks")
        before = turns(browser)[3:]
        opened(browser, served)
        assert turns(browser)[3:] == before == [["user", "Thanks"], ["assistant", "You are welcome."]]
        assert browser.run("document.activeElement.id") == "message"
        order = []
        for _ in range(3):
            browser.press("Tab")
            order.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
        assert order[0] == "end", "nothing to send, so that the button is passed over"
        browser.run("document.getElementById('end').focus()")
        browser.press("Enter")
        browser.until("document.getElementById('message').disabled")
        assert browser.run("document.activeElement.id") == "new"
        browser.press("Enter")
        browser.until("document.querySelectorAll('#list li').length === 2")
        listed = browser.run("[...document.querySelectorAll('#list button')].map(one => one.textContent)")
        assert listed == ["New conversation", "What is\n17 * 3?ended"]
        browser.run("document.querySelectorAll('#list button')[1].click()")
        browser.until("document.querySelectorAll('#turns > li').length === 5")
        assert browser.run("document.getElementById('message').placeholder") == "This conversation is over (ended)."


def test_nothing_that_is_said_becomes_markup_or_code(work, browser):
    with Served(run_of(work, "stub://echo", agent__max_new_tokens=400), "outputs") as served:
        opened(browser, served)
        for attack in TEXTS:
            said(browser, attack)
        for _ in range(2):
            shown = turns(browser)[1:]
            assert shown == [[who, attack] for attack in TEXTS for who in ("user", "assistant")]
            inside = browser.run("[...document.querySelectorAll('#turns *')].map(one => one.localName)")
            assert set(inside) == {"li", "span", "p"}
            assert browser.run(HARMED) is None
            assert browser.run("location.pathname") == "/"
            opened(browser, served)
        titles = browser.run("[...document.querySelectorAll('#list *')].map(one => one.localName)")
        assert set(titles) <= {"li", "button", "span"}


def test_a_token_is_asked_for_and_stays_in_the_tab(work, browser):
    with Served(run_of(work, "stub://Hello."), "outputs", GRPO_AUTH_TOKEN="open-sesame") as served:
        browser.go(served.url + "/")
        browser.until("!document.getElementById('door').hidden && document.activeElement.id === 'token'")
        browser.type("ouvre-toi s\u00e9same")
        browser.press("Enter")
        browser.until("document.getElementById('door-told').textContent.includes('beyond ASCII')")
        browser.run("document.getElementById('token').value = ''")
        browser.type("wrong")
        browser.press("Enter")
        browser.until("document.getElementById('door-told').textContent.includes('does not know that token')")
        browser.type("open-sesame")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#turns > li').length === 1")
        said(browser, "Hi")
        places = browser.run(
            "JSON.stringify([location.href, document.cookie, Object.entries(localStorage), history.length, "
            "performance.getEntries().map(one => one.name), document.documentElement.outerHTML])"
        )
        assert "open-sesame" not in places
        opened(browser, served)
        assert len(turns(browser)) == 3
    refused = [problem for problem in browser.problems if "401" in problem]
    assert len(refused) == 2
    browser.problems[:] = [problem for problem in browser.problems if problem not in refused]


STOPS = """
globalThis.seen = [];
new MutationObserver(() => {
  const shown = document.querySelector('#turns > li:nth-child(3)')?.textContent.length - "Agent".length;
  if (shown > (seen.at(-1) || 0)) seen.push(shown);
  if (seen.length === 2) document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
}).observe(document.getElementById("turns"), {childList: true, subtree: true, characterData: true});
"""
"""Presses Escape at the second piece of a reply: from outside a small model would be done by then."""


def test_a_reply_comes_in_pieces_and_is_stopped_with_a_key(work, browser):
    with Served(run_of(work, "tiny"), "outputs", "--max-new-tokens", "1200") as served:
        opened(browser, served)
        for conversation in range(2, 42):  # a random model may stop by itself, after any token
            browser.run(STOPS)
            browser.type("Hello")
            browser.press("Enter")
            browser.until("!document.getElementById('stop').hidden || document.querySelectorAll('#turns > li')[2]")
            browser.until("document.getElementById('stop').hidden")
            time.sleep(0.8)
            shown, seen = turns(browser), browser.run("seen")
            kept = browser.run("document.getElementById('message').value")
            opened(browser, served)
            assert turns(browser) == shown, "a reply that was whole when the stop arrived counts"
            if len(shown) == 1:
                break
            browser.run("document.getElementById('new').click()")
            browser.until(f"document.querySelectorAll('#list li').length === {conversation}")
            browser.until("!document.getElementById('message').disabled")
        assert 0 < seen[0] < seen[1]
        assert kept == "Hello"


def test_a_server_that_dies_is_told_and_the_message_is_said_once_it_is_back(work, browser):
    folder = run_of(work, "stub://One.|Two.|Three.")
    served = Served(folder, "outputs")
    opened(browser, served)
    said(browser, "first")
    served.kill()
    browser.type("second")
    browser.press("Enter")
    browser.until("document.getElementById('notice').textContent.includes('The server cannot be reached.')")
    assert browser.run("document.getElementById('message').value") == "second"
    with Served(folder, "outputs", port=served.port) as again:
        browser.run("document.querySelector('#notice button').click()")
        browser.until("document.querySelectorAll('#turns > li').length === 5")
        browser.until("!document.querySelector('[aria-busy]')")
        assert turns(browser)[3:] == [["user", "second"], ["assistant", "Two."]]
        assert browser.run("document.getElementById('message').value") == ""
        opened(browser, again)
        assert len(turns(browser)) == 5
    browser.problems[:] = [one for one in browser.problems if "ERR_CONNECTION_REFUSED" not in one and "503" not in one]


def test_conversations_that_the_server_has_not_are_told_and_forgotten(work, browser):
    folder = run_of(work, "stub://One.|Two.")
    with Served(folder, "outputs") as served:
        opened(browser, served)
        said(browser, "first")
        browser.run("document.getElementById('new').click()")
        browser.until("document.querySelectorAll('#list li').length === 2")
    (folder / "grpo-serve" / "conversations.sqlite3").unlink()
    with Served(folder, "outputs", port=served.port):
        browser.go(served.url + "/")
        browser.until("!document.getElementById('notice').hidden")
        assert turns(browser) == []
        browser.run("document.getElementById('new').click()")
        browser.until("document.querySelectorAll('#turns > li').length === 1")
        browser.run("[...document.querySelectorAll('#list button')].find(one => one.textContent === 'first').click()")
        browser.until("document.querySelectorAll('#list li').length === 1")
        assert len(turns(browser)) == 1, "the one that is there stays"
        said(browser, "second")
    browser.problems[:] = [one for one in browser.problems if "404" not in one]


LOSES_THE_FIRST_REPLY = """
globalThis.real = fetch;
globalThis.fetch = async (path, ...more) => {
  const answer = await real(path, ...more);
  if (!path.endsWith("/message") || globalThis.lost) return answer;
  globalThis.lost = await answer.text();
  throw new TypeError("the network is gone");
};
"""


def test_a_message_whose_reply_was_lost_is_said_once_however_often_it_is_sent(work, browser):
    with Served(run_of(work, "stub://One.|Two.|Three."), "outputs") as served:
        opened(browser, served)
        browser.run(LOSES_THE_FIRST_REPLY)
        browser.type("first")
        browser.press("Enter")
        browser.until("document.getElementById('notice').textContent.includes('The server cannot be reached.')")
        assert "One." in browser.run("lost"), "the server has answered"
        browser.run("document.querySelector('#notice button').click()")
        browser.until("document.querySelectorAll('#turns > li').length === 3 && !document.querySelector('[aria-busy]')")
        opened(browser, served)
        assert turns(browser)[1:] == [["user", "first"], ["assistant", "One."]]


def test_the_page_is_accessible_in_every_state(work, browser):
    axe = axe_core()
    if axe is None:
        pytest.skip("axe-core cannot be got from npm")
    folder = run_of(work, ANSWERS, **TOOL_AGENT)
    pictures = os.environ.get("PICTURES")
    with Served(folder, "outputs", "--config-file", "run.json") as served:
        looks = {"light": {}, "dark": {"dark": True}, "narrow": {"width": 390}}
        for count, (name, how) in enumerate(looks.items(), start=1):
            opened(browser, served, **how)
            if count > 1:
                browser.run("document.getElementById('new').click()")
            browser.until(f"document.querySelectorAll('#list li').length === {count}")
            browser.until("!document.getElementById('message').disabled")
            said(browser, "What is 17 * 3?")
            browser.run("document.querySelector('details').open = true")
            assert found_wrong(browser, axe) == [], name
            if pictures:
                browser.picture(Path(pictures) / f"chat-page-{name}.png")
        browser.run("document.getElementById('end').click()")
        browser.until("document.getElementById('message').disabled")
        assert found_wrong(browser, axe) == [], "ended"
    browser.run("document.getElementById('new').click()")
    browser.until("!document.getElementById('notice').hidden")
    assert found_wrong(browser, axe) == [], "nobody there"
    browser.run("sessionStorage.clear()")
    with Served(folder, "outputs", "--config-file", "run.json", GRPO_AUTH_TOKEN="open-sesame") as served:
        browser.go(served.url + "/")
        browser.until("document.activeElement.id === 'token'")
        assert found_wrong(browser, axe) == [], "the door"
    browser.problems[:] = [one for one in browser.problems if "401" not in one and "ERR_CONNECTION" not in one]


def test_only_the_files_of_the_page_are_open_and_each_is_guarded(work):
    with Served(run_of(work, "stub://Hello."), "outputs", GRPO_AUTH_TOKEN="open-sesame") as served:
        status, headers, page = served.get("/")
        assert status == 200
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|https?://", page)
        files = set(re.findall(r'(?:src|href)="(page/[^"]+)"', page)) | {"page/server.js", "page/turns.js"}
        for file in sorted(files):
            assert served.get(f"/{file}")[0] == 200, file
            assert "innerHTML" not in served.get(f"/{file}")[2]
        closed = (
            "/page/",
            "/page/__init__.py",
            "/page/../app.py",
            "/page/index.html",
            "//",
            "/page",
            "/openapi.json",
        )
        assert {path: served.get(path)[0] for path in closed} == dict.fromkeys(closed, 401)
        assert served.get("/", "DELETE")[0] == 405
        assert json.dumps(headers).count("open-sesame") == 0
