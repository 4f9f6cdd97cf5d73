"""The page in a real browser: what it shows, that it can be used, and that what a run says stays text."""

import json
import time
from urllib.parse import quote

import pytest

from accessibility import axe_core, found_wrong
from browser import Browser
from dashboard_site import group, make_run, row
from stateset_agents.core.trajectory import TrajectoryGroup
from stateset_agents.dashboard.export import write_export
from stateset_agents.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

ATTACKS = (
    "<script>globalThis.pwned = 1</script>",
    "<img src=x onerror='globalThis.pwned = 2'>",
    "</script><script>globalThis.pwned = 3</script>",
    "<svg onload=globalThis.pwned=4><a href='javascript:globalThis.pwned=5'>x</a></svg>",
    "javascript:globalThis.pwned = 6",
    '"><iframe srcdoc="<script>parent.pwned = 7</script>"></iframe>',
    "${globalThis.pwned = 8}{{constructor.constructor('globalThis.pwned = 9')()}}",
    "'; globalThis.pwned = 10; //",
    "<style>* { display: none }</style><base href='https://evil.test/'><meta http-equiv=refresh content='0;url=https://evil.test'>",
    "\u2028globalThis.pwned = 11\u2029 \ud800 \x00 \u202e",
    "__proto__",
    "constructor",
)
INERT = """({
    pwned: globalThis.pwned ?? null,
    foreign: document.querySelectorAll(
        "main script, main img, main iframe, main style, main base, main a[href^=javascript], [onerror], [onload]"
    ).length,
    polluted: ({}).reward ?? null,
})"""
SHOW_TOKENS = """{
    const choice = document.querySelector(".samples select");
    choice.value = "tokens";
    choice.dispatchEvent(new Event("change"));
}"""
TABS = {"learning": ".grid .chart canvas", "conversations": ".sample", "health": ".verdict", "config": "code"}


@pytest.fixture
def browser():
    """A test asks for it after `site`, so that it is closed before: a page whose server is gone complains."""
    program = Browser.found()
    if program is None:
        pytest.skip("a page is looked at in a browser, and Chromium is not installed")
    with Browser(program) as browser:
        yield browser
    assert browser.problems == []


def nasty(place: int) -> TrajectoryGroup:
    """A group in which everything that can hold text holds an attack."""
    attack = ATTACKS[place]
    found = group(attack, [0.1, 0.9], says=attack)
    for episode in found.trajectories:
        episode.breakdown = {attack: 1.0}
        episode.error = attack
        episode.advantages = [0.5]
        episode.tokens = [{"pieces": [attack], "mask": [1], "advantages": [1.0], "logprobs": [0.0], "cut": 0}]
        episode.turns[0].role = attack
        episode.turns[1].metadata = {attack: attack}
    return found


@pytest.fixture
def attacked(tmp_path):
    """A run whose every word is an attack."""
    config = json.dumps({"agent": {attack: attack for attack in ATTACKS[:9]}})
    path = tmp_path / "runs" / "<img src=x onerror=globalThis.pwned=12>"
    with RunFolder.create(path, config_yaml=config) as folder:
        for step, _ in enumerate(ATTACKS, 1):
            folder.log_trajectories(step, [nasty(step - 1)])
            folder.log_metrics(
                row(step) | {f"reward/{attack}": 0.5 for attack in ATTACKS} | {ATTACKS[0]: 1.0, ATTACKS[10]: 1}
            )
        folder.write_text("report.txt", "\n".join(ATTACKS[:9]))
        folder.write_text("config_origins.json", json.dumps({"agent": ATTACKS[0]}))
        folder.set_status("failed", ATTACKS[0])
    return path


def shown(browser: Browser, selector: str) -> None:
    """Wait until there is one."""
    browser.until(f"document.querySelector({json.dumps(selector)}) !== null")


def looks(browser: Browser) -> None:
    """Nothing of what the run says has become more than text."""
    assert browser.run(INERT) == {"pwned": None, "foreign": 0, "polluted": None}


@pytest.mark.parametrize("exported", [False, True], ids=["served", "exported"])
def test_what_a_run_says_stays_text(tmp_path, attacked, site, browser, exported):
    run = f"#/run/{quote(attacked.name)}"
    write_export(attacked.parent, tmp_path / "page")
    served = site(attacked.parent)
    home = f"file://{tmp_path}/page/" if exported else f"http://localhost:{served.port}/"
    page = home + "index.html" if exported else home
    browser.go(page)
    shown(browser, "main input[type=checkbox]")
    looks(browser)
    browser.click("main input[type=checkbox]")
    shown(browser, "main .chart canvas")
    looks(browser)
    browser.go(f"{page}{run}/learning")
    shown(browser, ".grid .chart canvas")
    shown(browser, "main button[aria-expanded]")
    browser.run("document.querySelector('main button[aria-expanded]').click()")
    browser.click(".u-over", x=40, y=40)
    shown(browser, ".sample")
    browser.go("about:blank")
    for step, attack in enumerate(ATTACKS, 1):
        browser.go(f"{page}{run}/conversations?step={step}")
        browser.until(f"document.querySelector('.samples h2')?.innerText.includes('step {step},')")
        looks(browser)
        assert browser.run("document.querySelector('.assistant .said').textContent") == attack
        browser.run(SHOW_TOKENS)
        shown(browser, ".tokens")
        looks(browser)
    for tab, ready in (("health", ".verdict"), ("config", "code")):
        browser.go(f"{page}{run}/{tab}")
        shown(browser, ready)
        looks(browser)
    assert {asked for asked in browser.requests if not asked.startswith((home, "data:", "about:"))} == set()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong_on_any_page(tmp_path, site, browser, dark):
    axe = axe_core()
    if axe is None:
        pytest.skip("axe-core cannot be got from npm")
    make_run(tmp_path / "runs" / "one", 40)
    make_run(tmp_path / "runs" / "two", 40)
    served = site(tmp_path / "runs")
    page = f"http://localhost:{served.port}/"
    browser.go(page, dark=dark)
    shown(browser, "main input[type=checkbox]")
    browser.click("main input[type=checkbox]")
    shown(browser, "main .chart canvas")
    assert found_wrong(browser, axe) == []
    for tab, ready in TABS.items():
        browser.go(f"{page}#/run/one/{tab}", dark=dark)
        shown(browser, ready)
        assert found_wrong(browser, axe) == [], tab


def test_a_click_on_a_step_shows_its_conversations_and_the_address_names_them(one_run, site, browser):
    served = site(one_run)
    browser.go(f"http://localhost:{served.port}/#/run/one/learning")
    shown(browser, ".chart.wide .u-over")
    shown(browser, ".grid .chart")
    browser.click(".chart.wide .u-over", x=5, y=100)
    shown(browser, ".sample")
    assert browser.run("location.hash") == "#/run/one/conversations?step=1&open=1%2Ftrain%2F0"
    assert browser.run("document.querySelector('.samples h2').innerText").startswith("price step 1")


def test_the_page_can_be_used_without_a_mouse(one_run, site, browser):
    served = site(one_run.parent)
    browser.go(f"http://localhost:{served.port}/")
    shown(browser, "main a")
    for _ in range(6):  # to the content, the trail, the colours, the table, the box, the run
        browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "one"
    browser.press("Enter")
    shown(browser, ".verdict")
    assert browser.run("location.hash") == "#/run/one/learning"


def test_colours_are_those_of_the_system_until_somebody_chooses(one_run, site, browser):
    paper = "getComputedStyle(document.body).backgroundColor"
    served = site(one_run.parent)
    for dark, switched in ((False, "rgb(16, 21, 27)"), (True, "rgb(246, 247, 249)")):
        browser.go(f"http://localhost:{served.port}/?{dark}", dark=dark)
        browser.run("localStorage.clear(); location.reload()")
        shown(browser, "main a")
        assert browser.run(paper) == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")
        browser.click("#theme")
        assert browser.run(paper) == switched


def test_a_run_that_goes_on_is_seen_to_go_on(one_run, site, browser):
    served = site(one_run)
    browser.go(f"http://localhost:{served.port}/#/run/one/learning")
    browser.until("document.querySelector('.head')?.innerText.includes('step 20 ')")
    with RunFolder.open(one_run) as folder:
        folder.truncate(10)
        for step in range(11, 26):
            folder.log_metrics(row(step))
    browser.until("document.querySelector('.head').innerText.includes('step 25 ')")
    assert "running" in browser.run("document.querySelector('.head').innerText")


def test_a_long_run_is_painted_in_two_seconds(tmp_path, site, browser):
    path = make_run(tmp_path / "long", 1)
    rest = ", ".join(f'"key{number}": 0.123456789012' for number in range(36))
    with (path / "metrics.jsonl").open("a") as log:
        for step in range(2, 300_001):
            log.write(f'{{"step": {step}, "reward_mean": {step / 600_000}, {rest}}}\n')
    served = site(path)
    begin = time.monotonic()
    browser.go(f"http://localhost:{served.port}/#/run/long/learning")
    shown(browser, ".chart.wide canvas")
    assert time.monotonic() - begin < 2
