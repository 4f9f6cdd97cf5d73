"""The page in a real browser: what it shows, that it can be used, and that what a run says stays text."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from accessibility import axe_core, found_wrong
from attacks import BROKEN, HARMED, TEXTS
from browser import Browser
from dashboard_site import SPIKE, group, make_long_run, make_run, row, serving
from stateset_agents.core.tool_calls import ToolCall, ToolResult
from stateset_agents.core.trajectory import ConversationTurn, TrajectoryGroup
from stateset_agents.dashboard.export import write_export
from stateset_agents.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

ATTACKS = (*TEXTS, *BROKEN)
INERT = f"""({{
    harmed: {HARMED},
    foreign: document.querySelectorAll(
        "main script, main img, main iframe, main style, main base, main object, main a[href^=javascript], "
        + "[onerror], [onload], [onfocus], [onmouseover], [ontoggle]"
    ).length,
    polluted: ({{}}).reward ?? null,
}})"""
SHOW = """{{
    const choice = document.querySelector(".samples select");
    choice.value = "{}";
    choice.dispatchEvent(new Event("change"));
}}"""


@pytest.fixture
def browser():
    """A test asks for it after `site`, so that it is closed before: a page whose server is gone complains."""
    program = Browser.found()
    if program is None:
        pytest.skip("a page is looked at in a browser, and Chromium is not installed")
    with Browser(program) as browser:
        yield browser
    assert browser.problems == []


def nasty(attack: str) -> TrajectoryGroup:
    """A group in which everything that can hold text holds an attack."""
    found = group(attack, [0.1, 0.9], says=attack)
    for episode in found.trajectories:
        episode.breakdown = {attack: 1.0}
        episode.error = attack
        episode.advantages = [0.5, None]
        episode.tokens = [{"pieces": [attack], "mask": [1], "advantages": [1.0], "logprobs": [0.0], "cut": 0}]
        episode.turns[0].role = attack
        episode.turns[1].metadata = {attack: attack}
        episode.turns += [
            ConversationTurn("assistant", "", tool_calls=(ToolCall(attack, {attack: attack, "list": [attack]}),)),
            ConversationTurn("tool", attack, tool_result=ToolResult(attack)),
        ]
    found.trajectories[1].turns[1].content = f"{attack} and {attack}"
    return found


@pytest.fixture
def attacked(tmp_path):
    """A run whose every word is an attack."""
    config = json.dumps({"agent": {attack: attack for attack in TEXTS}, "tools": [{"name": TEXTS[0]}, *TEXTS]})
    path = tmp_path / "runs" / "<img src=x onerror=globalThis.harmed=1>"
    keys = ("reward/{}", "{}", "{}_seconds", "memory_{}", "breaker_{}")
    with RunFolder.create(path, config_yaml=config) as folder:
        for step, attack in enumerate(ATTACKS, 1):
            folder.log_trajectories(step, [nasty(attack)])
            more = {key.format(attack): 0.5 for key in keys for attack in (TEXTS[0], TEXTS[5], "__proto__")}
            folder.log_metrics(row(step) | more | {f"breaker_{attack}": attack})
        folder.write_text("report.txt", "\n".join(TEXTS))
        folder.write_text("config_origins.json", json.dumps({"agent": TEXTS[0], "tools": TEXTS[5]}))
        folder.set_status("failed", TEXTS[0])
    saved = path / "checkpoints" / "step-1"
    saved.mkdir(parents=True)
    (saved / "manifest.json").write_text(json.dumps({"format": TEXTS[0]}))
    return path


def shown(browser: Browser, selector: str) -> None:
    """Wait until there is one."""
    browser.until(f"document.querySelector({json.dumps(selector)}) !== null")


def looks(browser: Browser) -> None:
    """Nothing of what the run says has become more than text."""
    assert browser.run(INERT) == {"harmed": None, "foreign": 0, "polluted": None}


def test_a_browser_whose_page_was_harmed_says_so(tmp_path):
    program = Browser.found()
    if program is None:
        pytest.skip("Chromium is not installed")
    policy = "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    (tmp_path / "page.html").write_text(f"{policy}<script>globalThis.harmed = 1</script><p onclick=x()>")
    with Browser(program) as browser:
        browser.go((tmp_path / "page.html").as_uri())
        assert browser.run(HARMED) is None
        assert "Content Security Policy" in browser.problems[0]
        browser.run("globalThis.harmed = 1")
        assert browser.run(HARMED) == 1


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
        for view, ready in (("tokens", ".tokens"), ("differences", ".differences mark")):
            browser.run(SHOW.format(view))
            shown(browser, ready)
            looks(browser)
    for tab, ready in (("health", ".verdict"), ("config", "code")):
        browser.go(f"{page}{run}/{tab}")
        shown(browser, ready)
        looks(browser)
    assert {asked for asked in browser.requests if not asked.startswith((home, "data:", "about:"))} == set()


def rich_run(path: Path) -> Path:
    """A run that has everything that a page can show."""
    more = {"rollout_seconds": 20.0, "train_seconds": 9.0, "memory_peak_bytes": 2e9, "breaker_judge": "open"}
    with RunFolder.create(path, config_yaml="training:\n  seed: 1\n  profile: balanced\n") as folder:
        for step in range(1, 41):
            played = group("price", [0.1, 0.5, None])
            for advantage, episode in zip((-2.0, 0.5, None), (*played.trajectories, *played.failures), strict=True):
                episode.advantages, episode.success = [advantage, 0.01], bool(advantage and advantage > 0)
                row_of_tokens = {"pieces": list("Hello"), "mask": [1, 1, 1, 1, 0], "cut": 3, "logprobs": [-0.1] * 5}
                episode.tokens = [row_of_tokens | {"advantages": [advantage or 0, 2.0, -0.1, 0, None]}]
                episode.turns += [
                    ConversationTurn("assistant", "", tool_calls=(ToolCall("look_up", {"name": "price"}),)),
                    ConversationTurn("tool", "5", tool_result=ToolResult("look_up")),
                ]
            played.trajectories[1].error = "it took too long"
            folder.log_trajectories(step, [played])
            evaluated = {"eval_reward_mean": 0.3, "eval_reward_low": 0.2, "eval_reward_high": 0.4}
            folder.log_metrics(row(step, zero_variance_share=0.9, **more, **(evaluated if step % 10 == 0 else {})))
        folder.write_text("report.txt", "What came of it\n")
        folder.set_status("failed", "the disk is full")
    saved = path / "checkpoints" / "step-40"
    saved.mkdir(parents=True)
    (saved / "manifest.json").write_text("{}")
    (saved / "reward.json").write_text('{"attainable": 1.0}')
    with (path / "metrics.jsonl").open("a") as log:
        log.write("torn\n")
    return path


TOO_WIDE = """document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth && !one.closest(".scroll, .columns"))
    .map((one) => one.outerHTML.slice(0, 120))"""
PAINTED = "document.querySelector('.chart.wide canvas') ? performance.now() / 1000 : null"
"""Seconds since the page was asked for, once the first chart is there."""
SELECT = (
    "for (const one of document.querySelectorAll('{}')) {{ one.value = '{}'; one.dispatchEvent(new Event('change')) }}"
)


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong_on_any_page(tmp_path, site, browser, dark, width):
    axe = axe_core()
    if axe is None:
        pytest.skip("axe-core cannot be got from npm")
    rich_run(tmp_path / "runs" / "one")
    make_run(tmp_path / "runs" / "two", 40)
    served = site(tmp_path / "runs")
    run = "#/run/one"
    pages = [
        ("#/?compare=one&compare=two", "main .chart canvas", ""),
        (f"{run}/learning", ".grid .chart canvas", "document.querySelector('[aria-expanded]').click()"),
        (
            f"{run}/conversations?step=3",
            ".sample",
            "for (const one of document.querySelectorAll('details')) one.open = 1",
        ),
        (f"{run}/conversations?view=tokens", ".tokens", ""),
        (f"{run}/conversations?view=differences", ".differences", ""),
        (f"{run}/conversations?step=77", ".samples p", ""),
        (f"{run}/health", ".shares", ""),
        (f"{run}/config", "code", SELECT.format(".bar select", "two")),
        ("#/run/none/learning", "[role=alert]", ""),
    ]
    for address, ready, then in pages:
        browser.go("about:blank")
        browser.go(f"http://localhost:{served.port}/{address}", dark=dark, width=width)
        shown(browser, ready)
        if then:
            browser.run(then)
            time.sleep(0.4)
        assert (address, found_wrong(browser, axe)) == (address, [])
        assert (address, browser.run(TOO_WIDE)) == (address, [])
    browser.problems[:] = [one for one in browser.problems if "404" not in one]


def test_a_click_on_a_step_shows_its_conversations_and_the_address_names_them(one_run, site, browser):
    served = site(one_run)
    browser.go(f"http://localhost:{served.port}/#/run/one/learning")
    shown(browser, ".chart.wide .u-over")
    shown(browser, ".grid .chart")
    browser.click(".chart.wide .u-over", x=5, y=100)
    shown(browser, ".sample")
    assert browser.run("location.hash") == "#/run/one/conversations?step=1&open=1%2Ftrain%2F0"
    assert browser.run("document.querySelector('.samples h2').innerText").startswith("price step 1")


def focused(browser: Browser) -> str:
    """What has the focus, in a few words."""
    return browser.run(
        "(one => one.getAttribute('aria-label') ?? one.labels?.[0]?.firstChild.textContent ?? one.textContent)"
        "(document.activeElement)"
    )


def tab_to(browser: Browser, name: str) -> None:
    """With the Tab key alone."""
    passed = []
    while (here := focused(browser)) != name and not here.startswith(f"{name}:"):
        assert len(passed) < 80, passed
        passed.append(here)
        browser.press("Tab")


def test_everything_can_be_done_with_the_keyboard_alone(tmp_path, site, browser):
    make_run(tmp_path / "runs" / "one")
    make_run(tmp_path / "runs" / "two", 30)
    served = site(tmp_path / "runs")
    browser.go(f"http://localhost:{served.port}/")
    shown(browser, "main a")
    for name in ("Compare one", "Compare two"):
        tab_to(browser, name)
        browser.press(" ")
        assert focused(browser) == name
    browser.until("document.querySelectorAll('main .chart .reading').length === 2")
    tab_to(browser, "one")
    browser.press("Enter")
    shown(browser, ".grid .chart canvas")
    assert browser.run("location.hash") == "#/run/one/learning"

    tab_to(browser, "Steps from")
    browser.type("5")
    tab_to(browser, "to")
    browser.type("15")
    browser.press("Enter")
    browser.until("document.querySelector('.chart.wide .plot')?.getAttribute('aria-valuemax') === '10'")
    tab_to(browser, "Reward")
    reading = "document.activeElement.getAttribute('aria-valuetext')"
    assert browser.run(reading) == "step 15: reward, running mean 0.350"
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.press(key)
    assert browser.run(reading) == "step 6: reward, running mean 0.260"
    assert browser.run("document.activeElement.querySelector('.tip').innerText").startswith("step 6")
    browser.press("Enter")
    shown(browser, ".sample")
    assert browser.run("location.hash").startswith("#/run/one/conversations?step=6&")

    tab_to(browser, "Show")
    browser.press("ArrowDown")
    shown(browser, ".differences")
    assert focused(browser) == "Show"
    tab_to(browser, "Next ›")
    browser.press("Enter")
    browser.until("document.querySelector('.samples h2').innerText.startsWith('order')")
    browser.go(f"http://localhost:{served.port}/#/run/one/learning")
    for tab, ready in (("Health", ".verdict"), ("Config and checkpoints", "code")):
        tab_to(browser, tab)
        browser.press("Enter")
        shown(browser, ready)


def test_what_has_the_focus_keeps_it_while_a_run_goes_on(one_run, site, browser):
    served = site(one_run)
    browser.go(f"http://localhost:{served.port}/#/run/one/learning")
    shown(browser, ".grid .chart canvas")
    tab_to(browser, "Loss")
    with RunFolder.open(one_run) as folder:
        folder.log_metrics(row(21, loss=0.25))
    browser.until("document.activeElement.getAttribute('aria-label') === 'Loss: at the end loss 0.250'")


def test_two_samples_differ_in_the_words_that_only_one_of_them_says(tmp_path, site, browser):
    said = ["It costs five dollars a day.", "It costs nine dollars and ninety cents a day.", "I do not know."]
    groups = [group("price", [0.2, 0.9, None])]
    for episode, words in zip(groups[0].trajectories, said, strict=False):
        episode.turns[1].content = words
    groups[0].trajectories[1].turns.append(ConversationTurn("user", "Thanks."))
    with RunFolder.create(tmp_path / "one", config_yaml="a: 1\n") as folder:
        folder.log_trajectories(1, groups)
        folder.log_metrics(row(1))
        folder.set_status("finished")
    served = site(tmp_path / "one")
    browser.go(f"http://localhost:{served.port}/#/run/one/conversations?view=differences")
    shown(browser, ".differences")
    marks = "[...document.querySelectorAll('.differences mark')].map(one => one.textContent)"
    assert browser.run(marks) == ["five", "nine", " and ninety cents", "Thanks."]
    assert "They part at turn 2." in browser.run("document.querySelector('.differences').innerText")
    assert "It was over." in browser.run("document.querySelector('.differences').innerText")
    browser.run(
        "{const one = document.querySelectorAll('.differences select')[1]; one.value = '0';"
        "one.dispatchEvent(new Event('change'))}"
    )
    browser.until("document.querySelector('.differences').innerText.includes('Word for word the same.')")
    assert browser.run("location.hash").endswith("&view=differences&pair=1-1")
    browser.run("location.reload()")
    browser.until("document.querySelector('.differences')?.innerText.includes('Word for word the same.')")


@pytest.mark.parametrize(
    ("first", "second", "only", "other"),
    [
        ("a b c", "a b c", [], []),
        ("", "new words", [], ["new words"]),
        ("one two three four", "one three four five", ["two "], [" five"]),
        ("a x y b", "a b", ["x y "], []),
        ("the cat sat", "the dog lay", ["cat sat"], ["dog lay"]),
        ("Größe 5,00 €", "Größe 5,50 €", ["00"], ["50"]),
        ("a\nb", "a b", ["\n"], [" "]),
        ("x " * 3000, "y " * 3000, [("x " * 3000).rstrip()], [("y " * 3000).rstrip()]),
    ],
)
def test_the_longest_run_of_words_that_both_have_is_no_difference(one_run, site, browser, first, second, only, other):
    browser.go(f"http://localhost:{site(one_run).port}/")
    found = browser.run(
        f"import('/differences.js').then(({{differing}}) => differing({json.dumps(first)}, {json.dumps(second)}))"
    )
    assert ["".join(part for part, _ in side) for side in found] == [first, second]
    assert [[part for part, differs in side if differs] for side in found] == [only, other]


def test_an_address_names_a_sample_and_a_step_shows_what_it_measured(one_run, site, browser):
    served = site(one_run)
    home = f"http://localhost:{served.port}/#/run/one/conversations?step=3"
    browser.go(home)
    shown(browser, ".sample")
    browser.run("document.querySelectorAll('.sample header a')[1].click()")
    browser.until("document.activeElement.id === 'sample-2'")
    address = browser.run("location.href")
    assert address == f"{home}&open=3%2Ftrain%2F0&sample=2"
    browser.go("about:blank")
    browser.go(address)
    browser.until("document.activeElement.id === 'sample-2'")
    browser.run("document.querySelector('.measured summary').click()")
    browser.until("document.querySelector('.measured table') !== null")
    assert "reward_mean\t0.231" in browser.run("document.querySelector('.measured').innerText")


def test_runs_are_compared_and_the_address_keeps_which(tmp_path, site, browser):
    make_run(tmp_path / "runs" / "a|b", 20)
    make_run(tmp_path / "runs" / "two", 30)
    make_run(tmp_path / "runs" / "empty", 1)
    (tmp_path / "runs" / "empty" / "metrics.jsonl").unlink()
    served = site(tmp_path / "runs")
    browser.go(f"http://localhost:{served.port}/")
    shown(browser, "main input[type=checkbox]")
    for name in ("empty", "a|b", "two"):
        browser.run(f"document.querySelector(`[aria-label='Compare {name}']`).click()")
    readings = "[...document.querySelectorAll('main .chart .reading')].map(one => one.innerText)"
    browser.until(f"{readings}.length === 2")
    assert browser.run(readings) == ["a|b 0.399", "two 0.499"]
    address = browser.run("location.href")
    assert address.endswith("#/?compare=empty&compare=a%7Cb&compare=two&key=reward_mean")
    browser.go("about:blank")
    browser.go(address)
    browser.until(f"{readings}.length === 2")


def test_the_attainable_reward_is_a_line_where_the_run_knows_it(tmp_path, site, browser):
    green = """{
        const canvas = document.querySelector('.chart.wide canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        for (let at = 0; at < data.length; at += 4) {
            if (data[at] === 0 && data[at + 1] === 102 && data[at + 2] === 74 && data[at + 3] === 255) count += 1;
        }
        count;
    }"""
    path = make_run(tmp_path / "one", 20)
    served = site(path)
    for attainable, least, most in ((None, 0, 0), (0.5, 300, 3000), (40.0, 1, 150)):
        if attainable is not None:
            (path / "final_model").mkdir(exist_ok=True)
            (path / "final_model" / "reward.json").write_text(json.dumps({"attainable": attainable}))
        browser.go("about:blank")
        browser.go(f"http://localhost:{served.port}/#/run/one/learning")
        shown(browser, ".grid .chart canvas")
        assert least <= browser.run(green) <= most, attainable
        said = browser.run("document.querySelector('.chart.wide figcaption').innerText")
        assert (f"attainable {attainable or 0:g}" in said) is (attainable is not None)


def test_time_memory_and_breakers_are_shown_where_a_row_has_them(tmp_path, site, browser):
    more = {
        "generate_seconds": 27.0, "train_seconds": 9.0, "memory_peak_bytes": 2_500_000_000, "memory_used_mib": 1024.0,
        "breaker_judge": "open",
    }  # fmt: skip
    with RunFolder.create(tmp_path / "one", config_yaml="a: 1\n") as folder:
        for step in range(1, 15):
            folder.log_metrics(row(step, **more))
        folder.set_status("finished")
    browser.go(f"http://localhost:{site(tmp_path / 'one').port}/#/run/one/health")
    shown(browser, ".shares")
    said = browser.run("document.querySelector('main').innerText.replace(/\\s*\\n\\s*/g, '\\t')")
    for line in ("generate\t75 %", "27 s", "learning\t25 %", "peak\t2.5 GB", "used\t1.1 GB", "judge\topen"):
        assert line in said, said
    browser.go(f"http://localhost:{site(tmp_path / 'one').port}/#/run/one/learning")
    titles = "[...document.querySelectorAll('.chart h2')].map(one => one.innerText)"
    browser.until(f"{titles}.includes('Memory')")
    assert "Seconds of a step" in browser.run(titles)


def test_what_cannot_be_read_and_what_is_gone_is_told(tmp_path, site, browser):
    path = make_run(tmp_path / "runs" / "one", 3)
    make_run(tmp_path / "runs" / "two", 3)
    (path / "trajectories.jsonl").unlink()
    (path / "trajectories.jsonl").mkdir()
    browser.go(f"http://localhost:{site(tmp_path / 'runs').port}/#/run/one/learning")
    browser.until(
        "document.querySelector('.head .notice')?.innerText === 'trajectories.jsonl is a folder, not a file.'"
    )
    shutil.rmtree(path)
    browser.until("document.querySelector('.head')?.innerText.includes('The folder of this run is gone')")
    browser.problems[:] = [one for one in browser.problems if "404" not in one]


def test_an_address_that_is_none_says_so(one_run, site, browser):
    browser.go(f"http://localhost:{site(one_run).port}/#/run/%zz/learning")
    browser.until("document.querySelector('[role=alert]')?.innerText.includes('there is no run of that name')")
    browser.problems[:] = [one for one in browser.problems if "404" not in one]


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


def test_a_run_of_a_million_steps_is_painted_in_two_seconds_and_then_shown_whole(browser):
    steps = 1_000_000
    hint = "document.querySelector('.chart.wide .hint')?.innerText ?? ''"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "long"
        make_long_run(path, steps)
        for attempt in range(3):  # the machine may be busy with something else
            with serving(path) as served:
                browser.go("about:blank")
                browser.go(f"http://localhost:{served.port}/#/run/long/learning")
                painted = browser.until(PAINTED)
                if painted < 2 or attempt == 2:
                    break
        assert painted < 2
        with serving(path) as served:
            browser.go("about:blank")
            browser.go(f"http://localhost:{served.port}/#/run/long/learning")
            browser.until(PAINTED)
            assert "A sample of the steps while the log is read." in browser.run(hint)
            browser.until(f"({hint}).includes('All 1,000,000 steps')", seconds=300)
            drawn = served.ask("series", run="long", key="reward_mean", points=800)
            assert (drawn["complete"], drawn["rows"], len(drawn["step"])) == (True, steps, 800)
            assert max(drawn["series"]["reward_mean"]["high"]) == SPIKE
            with (path / "metrics.jsonl").open("a") as log:
                log.write('\n{"step": 1000001, "reward_mean": 0.5}\n{"step": 1000002, "reward_mean": 0.5}\n')
            browser.until("document.querySelector('.head').innerText.includes('step 1,000,002 ')")
            assert "Left out, as it cannot be read: 1 line of metrics.jsonl." in browser.run("document.body.innerText")
            browser.go("about:blank")
