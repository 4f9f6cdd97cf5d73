"""The page in a real browser: what it shows, that it can be used, and that what a run says stays text."""

import json
import time
from threading import Timer

import pytest

from browser.chromium import missing, visit
from dashboard_site import group, make_run, row, serving
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
CLEAN = {"pwned": None, "foreign": 0, "polluted": None}


@pytest.fixture(autouse=True)
def browser():
    reason = missing()
    if reason:
        pytest.skip(f"a page is looked at in a browser: {reason}")


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


def tabs(address: str, name: str) -> list[dict]:
    """A visit of every page, of tokens and of a comparison."""
    look = ["look", INERT]
    return [
        {
            "url": f"{address}#/",
            "do": [look, ["click", "main input[type=checkbox]"], ["wait", "main .chart"], ["pause", 300], look],
        },
        {
            "url": f"{address}#/run/{name}/learning",
            "do": [
                ["wait", ".grid .chart"],
                ["click", "main button[aria-expanded]"],
                ["hover", ".u-over"],
                ["pause", 300],
                look,
            ],
        },
        *(
            {
                "url": f"{address}#/run/{name}/conversations?step={step}",
                "do": [
                    ["wait", ".sample"],
                    look,
                    ["text", ".sample"],
                    ["choose", ".samples select", "tokens"],
                    ["wait", ".tokens"],
                    look,
                ],
            }
            for step in range(1, len(ATTACKS) + 1)
        ),
        {"url": f"{address}#/run/{name}/health", "do": [["wait", ".verdict"], look]},
        {"url": f"{address}#/run/{name}/config", "do": [["wait", "code"], look]},
    ]


def test_what_a_run_says_stays_text(tmp_path, attacked):
    name = "%3Cimg%20src%3Dx%20onerror%3DglobalThis.pwned%3D12%3E"
    write_export(attacked.parent, tmp_path / "page")
    with serving(attacked.parent) as site:
        for address in (f"http://localhost:{site.port}/", f"file://{tmp_path}/page/index.html"):
            seen = visit({"visits": tabs(address, name)}, tmp_path)
            for found in seen:
                looks = [one for one in found["read"] if isinstance(one, dict)]
                assert looks
                assert all(look == CLEAN for look in looks), found
                assert found["errors"] == []
                assert all(
                    asked.startswith((address.split("#")[0].removesuffix("index.html"), "data:"))
                    for asked in found["requests"]
                )
            assert ATTACKS[0] in seen[2]["read"][1]
            assert ATTACKS[5] in seen[7]["read"][1]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong_on_any_page(tmp_path, dark):
    make_run(tmp_path / "runs" / "one", 40)
    make_run(tmp_path / "runs" / "two", 40)
    with serving(tmp_path / "runs") as site:
        address = f"http://localhost:{site.port}/"
        compare = [["click", "main input[type=checkbox]"], ["wait", "main .chart"]]
        visits = [{"url": address, "do": [*compare, ["axe"]]}]
        visits += [
            {"url": f"{address}#/run/one/{tab}", "do": [["wait", ready], ["pause", 300], ["axe"]]}
            for tab, ready in (
                ("learning", ".grid .chart"),
                ("conversations", ".sample"),
                ("health", ".verdict"),
                ("config", "code"),
            )
        ]
        for found in visit({"dark": dark, "visits": visits}, tmp_path):
            assert (found["axe"], found["errors"]) == ([], [])


def test_a_click_on_a_step_shows_its_conversations_and_the_address_names_them(tmp_path, one_run):
    with serving(one_run) as site:
        do = [
            ["wait", ".chart .u-over"],
            ["pause", 300],
            ["click", ".chart.wide .u-over", {"x": 5, "y": 100}],
            ["wait", ".sample"],
            ["pause", 300],
            ["look", "location.hash"],
            ["text", ".samples h2"],
        ]
        (found,) = visit({"visits": [{"url": f"http://localhost:{site.port}/#/run/one/learning", "do": do}]}, tmp_path)
    assert found["errors"] == []
    assert found["read"][0] == "#/run/one/conversations?step=1&open=1%2Ftrain%2F0"
    assert found["read"][1].startswith("price step 1")


def test_the_page_can_be_used_without_a_mouse(tmp_path, one_run):
    with serving(one_run.parent) as site:
        to_the_run = [["press", "Tab"]] * 6  # skip link, trail, theme, table, box, run
        do = [
            *to_the_run,
            ["look", "document.activeElement.textContent"],
            ["press", "Enter"],
            ["wait", ".verdict"],
            ["look", "location.hash"],
            ["click", "#theme"],
            ["look", "document.documentElement.dataset.theme + getComputedStyle(document.body).backgroundColor"],
        ]
        (found,) = visit({"visits": [{"url": f"http://localhost:{site.port}/", "do": do}]}, tmp_path)
    assert found["read"] == ["one", "#/run/one/learning", "darkrgb(16, 21, 27)"]


def test_a_run_that_goes_on_is_seen_to_go_on(tmp_path, one_run):
    def go_on() -> None:
        with RunFolder.open(one_run) as folder:
            folder.truncate(10)
            for step in range(11, 26):
                folder.log_metrics(row(step))
                folder.log_trajectories(step, [group("new", [0.0, 1.0])])

    with serving(one_run) as site:
        timer = Timer(3.0, go_on)
        timer.start()
        do = [["wait text", "step 20"], ["wait text", "step 25"], ["wait text", "running"], ["wait", ".grid .chart"]]
        (found,) = visit({"visits": [{"url": f"http://localhost:{site.port}/#/run/one/learning", "do": do}]}, tmp_path)
        timer.join()
    assert found["errors"] == []


def test_a_long_run_is_painted_in_two_seconds(tmp_path):
    path = make_run(tmp_path / "long", 1)
    rest = ", ".join(f'"key{number}": 0.123456789012' for number in range(36))
    with (path / "metrics.jsonl").open("a") as log:
        for step in range(2, 300_001):
            log.write(f'{{"step": {step}, "reward_mean": {step / 600_000}, {rest}}}\n')
    with serving(path) as site:
        do = [["wait", ".chart.wide canvas"], ["time"]]
        url = f"http://localhost:{site.port}/#/run/long/learning"
        begin = time.monotonic()
        (found,) = visit({"visits": [{"url": url, "do": do}]}, tmp_path)
        assert time.monotonic() - begin < 60
    assert found["read"][0] < 2000
    assert found["errors"] == []
