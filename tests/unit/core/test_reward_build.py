import importlib
import json
import sys
import textwrap

import pytest

from stateset_agents.core.dotted import import_dotted
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.reward import (
    DEFAULT_NOTICE,
    KINDS,
    CompositeReward,
    ConcisenessReward,
    CorrectnessReward,
    EngagementReward,
    ExactMatchReward,
    FormatReward,
    FunctionReward,
    HelpfulnessReward,
    LengthPenalty,
    NumericMatchReward,
    RepetitionPenalty,
    RewardType,
    RubricReward,
    SafetyReward,
    TaskCompletionReward,
    ToolSuccessReward,
    build_rewards,
    default_reward,
    load_reward,
)
from stateset_agents.core.trajectory import ConversationTurn as Turn

TALK = [Turn("user", "Hi"), Turn("assistant", "Hello there, friend.")]

MODULE = """
from stateset_agents.core.reward import HelpfulnessReward, RewardFunction, RewardResult, RewardType, reward_function

@reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE)
async def politeness_reward(turns, context=None):
    return 0.5

def plain(turns):
    return 0.25

class Judge(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(0.75)

judge = Judge(0.3)
number = 3

class group:
    inner = judge
"""


@pytest.fixture
def folder(tmp_path):
    """A config's folder with a module `my_rewards`; modules imported from it are forgotten afterwards."""
    before, search = set(sys.modules), list(sys.path)
    (tmp_path / "my_rewards.py").write_text(MODULE, encoding="utf-8")
    yield tmp_path
    sys.path[:] = search
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "score", "weight"),
    [
        ("politeness_reward", 0.5, 0.5),
        ("plain", 0.25, 1.0),
        ("Judge", 0.75, 1.0),
        ("judge", 0.75, 0.3),
        ("group.inner", 0.75, 0.3),
    ],
)
async def test_a_custom_reward_is_found_beside_the_config(folder, name, score, weight):
    path = list(sys.path)
    reward = load_reward(f"my_rewards.{name}", folder)
    assert (await reward.evaluate(TALK)).score == score
    assert reward.weight == weight
    assert sys.path == [*path, str(folder)]


def test_a_weight_in_the_config_replaces_the_rewards_own(folder):
    decorated = load_reward("my_rewards.politeness_reward", folder, weight=0.2)
    assert (decorated.weight, decorated.label) == (0.2, "politeness_reward")
    assert decorated.reward_type is RewardType.IMMEDIATE
    assert load_reward("my_rewards.politeness_reward", folder).weight == 0.5
    assert load_reward("my_rewards.judge", folder, weight=0.2).weight == 0.2


def test_a_custom_reward_is_found_among_the_installed_packages():
    found = load_reward("stateset_agents.core.reward.HelpfulnessReward")
    assert isinstance(found, HelpfulnessReward)


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("politeness_reward", "must be a dotted path"),
        ("my_rewards.", "must be a dotted path"),
        ("my rewards.x", "must be a dotted path"),
        ("../my_rewards.x", "must be a dotted path"),
        ("my_rewards.__import__('os')", "must be a dotted path"),
        ("my_rewards.politeness_reward\n", "must be a dotted path"),
        (3, "must be a dotted path"),
        ("no_such_module.x", 'there is no module "no_such_module" in .* or among the installed packages'),
        ("my_rewards.politness_reward", 'my_rewards has no "politness_reward"; did you mean "politeness_reward"'),
        ("my_rewards.zzz", 'my_rewards has no "zzz"$'),
        ("my_rewards.number", '"my_rewards.number": 3 is not a reward'),
        ("my_rewards.judge.zzz", 'no "zzz"'),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_reason(folder, dotted, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_reward(dotted, folder, what="rewards[2].module")
    assert str(caught.value).startswith("rewards[2].module")


def test_a_module_that_fails_on_import_says_how(folder):
    (folder / "broken_rewards.py").write_text("raise OSError('no disk')", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"importing broken_rewards raised OSError\('no disk'\)"):
        load_reward("broken_rewards.x", folder)
    (folder / "needy_rewards.py").write_text("import no_such_package_at_all", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"importing needy_rewards raised .*no_such_package_at_all"):
        load_reward("needy_rewards.x", folder)
    with pytest.raises(ConfigError, match=r'no module "no_such" in the installed packages'):
        import_dotted("no_such.x")


def test_two_folders_may_have_a_module_of_the_same_name(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "my_rewards.py").write_text("def plain(turns):\n    return 1.0\n", encoding="utf-8")
    first = import_dotted("my_rewards.plain", folder)
    assert import_dotted("my_rewards.plain", folder) is first
    second = import_dotted("my_rewards.plain", other)
    assert (first([]), second([])) == (0.25, 1.0)
    assert import_dotted("my_rewards.plain", folder)([]) == 0.25


def test_a_module_that_is_loaded_from_that_very_folder_is_used(folder, monkeypatch):
    (folder / "loaded_rewards.py").write_text("def plain(turns):\n    return 1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("loaded_rewards")
    assert import_dotted("loaded_rewards.plain", folder) is module.plain


def test_a_package_beside_the_config_brings_its_own_modules(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "my_package" / "part.py").write_text("from .other import score\n", encoding="utf-8")
    (folder / "my_package" / "other.py").write_text("def score(turns):\n    return 1.0\n", encoding="utf-8")
    assert import_dotted("my_package.part.score", folder)([]) == 1.0


def test_a_file_beside_the_config_never_hides_a_loaded_module(folder):
    (folder / "json.py").write_text("loads = None", encoding="utf-8")
    with pytest.raises(ConfigError, match="another module of that name is loaded already"):
        import_dotted("json.loads", folder)
    assert sys.modules["json"] is json


async def test_a_list_of_entries_becomes_a_weighted_sum(folder):
    (folder / "truth.json").write_text('{"ground_truth": {"s": "friend"}}', encoding="utf-8")
    reward = build_rewards(
        [
            {"type": "helpfulness", "weight": 0.4},
            {"type": "conciseness", "weight": 0.1, "optimal_length": 2},
            {"type": "correctness", "weight": 0.2, "ground_truth_file": "truth.json"},
            {"type": "custom", "weight": 0.2, "module": "my_rewards.politeness_reward", "name": "polite"},
            {"type": "safety", "weight": 0.1, "name": None},
        ],
        base_dir=folder,
    )
    assert list(reward.rewards) == ["helpfulness", "conciseness", "correctness", "polite", "safety"]
    assert reward.attainable is None
    result = await reward.evaluate(TALK, {"scenario_id": "s"})
    assert result.breakdown["correctness"] == 1.0
    assert result.breakdown["conciseness"] == 0.75
    expected = sum(w * result.breakdown[k] for k, w in zip(reward.rewards, (0.4, 0.1, 0.2, 0.2, 0.1), strict=True))
    assert result.score == pytest.approx(expected)


def test_a_reward_builds_itself_again_from_its_config(folder):
    reward = build_rewards(
        [
            {"type": "conciseness", "optimal_length": 7},
            {"type": "custom", "module": "my_rewards.politeness_reward"},
            {"type": "correctness", "weight": 0.5, "ground_truth": {"s": ["x", "y"]}},
        ],
        "average",
        folder,
    )
    config = json.loads(json.dumps(reward.to_config()))
    assert config["combination_method"] == "average"
    assert build_rewards(config["functions"], config["combination_method"], folder).to_config() == reward.to_config()


def test_every_problem_of_every_entry_is_reported_at_once(folder):
    with pytest.raises(ConfigError) as caught:
        build_rewards(
            [
                {"type": "helpfulnes"},
                {"weight": 1},
                {"type": "safety", "wieght": 1, "module": "x.y"},
                {"type": "conciseness", "optimal_length": 0},
                {"type": "custom"},
                {"type": "custom", "module": "nowhere"},
                {"type": "engagement", "weight": "much"},
                {"type": "correctness", "ground_truth": 3},
                "helpfulness",
            ],
            "maximum",
            folder,
        )
    assert [textwrap.shorten(problem, 75, placeholder="") for problem in caught.value.problems] == [
        "rewards[0].type is 'helpfulnes', which does not exist; did you mean",
        "rewards[1].type is None, which does not exist. Known: helpfulness, safety,",
        "rewards[2] has the unknown key 'wieght'; did you mean 'weight'? Known:",
        "rewards[2] has the unknown key 'module'. Known: weight, name, reward_type",
        "rewards[3].optimal_length is 0; it must be a whole number of at least 1",
        'rewards[4] is of type "custom" and needs "module: my_rewards.my_reward"',
        "rewards[5].module is 'nowhere'; it must be a dotted path such as",
        "rewards[6]: weight of reward 'engagement' is 'much'; it must be a finite",
        "rewards[7]: ground_truth: no answers; it must map scenario ids to answers,",
        "rewards[8] is 'helpfulness'; it must be a mapping such as {\"type\":",
        "combination_method is 'maximum', which does not exist; did you mean 'max'?",
    ]


def test_an_empty_list_of_rewards_is_refused():
    with pytest.raises(ConfigError, match=r"rewards is .* at least one entry"):
        build_rewards([])


def test_a_missing_ground_truth_file_is_a_data_error(folder):
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        build_rewards([{"type": "correctness", "ground_truth_file": "none.json"}], base_dir=folder)
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.ground_truth_file is 3; it must be the path of a file"):
        build_rewards([{"type": "correctness", "ground_truth_file": 3}])


def test_the_default_reward_is_stated_and_never_pays_for_length():
    reward = default_reward()
    assert isinstance(reward, CompositeReward)
    assert reward.attainable == pytest.approx(1.0)
    assert {name: part.weight for name, part in reward.rewards.items()} == {
        "helpfulness": 0.5,
        "safety": 0.2,
        "conciseness": 0.2,
        "engagement": 0.1,
    }
    assert all(f"{part.weight} {name}" in DEFAULT_NOTICE for name, part in reward.rewards.items())


async def test_more_of_the_same_words_never_raises_the_default_reward():
    reply = "Write a small program each day, and read the official tutorial."
    asked = Turn("user", "How do I learn Python?")
    scores = [(await default_reward().evaluate([asked, Turn("assistant", reply * n)])).score for n in (1, 2, 4, 40)]
    assert scores == sorted(scores, reverse=True)


def test_a_custom_reward_has_its_own_weight_unless_the_entry_gives_one(folder):
    entry = {"type": "custom", "module": "my_rewards.politeness_reward"}
    reward = build_rewards([{**entry, "name": "a"}, {**entry, "weight": 2.0, "name": "b"}, entry], base_dir=folder)
    assert [(name, part.weight) for name, part in reward.rewards.items()] == [
        ("a", 0.5),
        ("b", 2.0),
        ("politeness_reward", 0.5),
    ]
    assert import_dotted("my_rewards.politeness_reward", folder).weight == 0.5


async def test_a_reward_may_import_its_neighbours_when_it_runs(folder):
    (folder / "late_neighbour.py").write_text("SCORE = 0.125\n", encoding="utf-8")
    (folder / "wave.py").write_text("SCORE = 'hides what is installed'\n", encoding="utf-8")
    (folder / "late_rewards.py").write_text(
        "def late(turns):\n    import wave\n    from late_neighbour import SCORE\n    assert wave.open\n"
        "    return SCORE\n",
        encoding="utf-8",
    )
    sys.modules.pop("wave", None)
    reward = load_reward("late_rewards.late", folder)
    assert (await reward.evaluate(TALK)).score == 0.125


REWARDS = {
    "helpfulness": lambda: HelpfulnessReward(0.5, "help", "immediate"),
    "safety": lambda: SafetyReward(0.2),
    "conciseness": lambda: ConcisenessReward(0.2, 30, "short"),
    "engagement": lambda: EngagementReward(0.1, reward_type="dense"),
    "one answer": lambda: CorrectnessReward(2.0, "Paris", name="right"),
    "answers": lambda: CorrectnessReward(1.0, {"s": "friend"}),
    "task completion": lambda: TaskCompletionReward(0.5, partial=False),
    "tool success": lambda: ToolSuccessReward(0.5, 2, "unscored", "tools"),
    "format": lambda: FormatReward(json_schema={"type": "object"}, allow_text=True, judged="every"),
    "exact match": lambda: ExactMatchReward(0.5, {"s": ["friend", "x"]}, marker="there,"),
    "numeric match": lambda: NumericMatchReward(ground_truth={"s": 4}, tolerance=0.5, number="only", marker="H"),
    "repetition": lambda: RepetitionPenalty(0.5, 2),
    "length": lambda: LengthPenalty(0.5, 40, 2, 9),
    "rubric": lambda: RubricReward([{"contains": "friend", "points": 2}, {"max_words": 2, "in": "last"}], 0.5),
    "default": default_reward,
    "nested": lambda: CompositeReward([CompositeReward([SafetyReward()], "min", 0.25, "inner"), SafetyReward(0.75)]),
}


@pytest.mark.parametrize("make", REWARDS.values(), ids=REWARDS)
async def test_a_reward_is_the_same_after_its_config(make):
    first = CompositeReward([make()], name="whole")
    config = json.loads(json.dumps(first.to_config()))
    again = build_rewards(config)
    assert again.to_config() == config
    assert (again.name, again.attainable) == ("whole", first.attainable)
    context = {"scenario_id": "s", "facts": {"friend": "friend"}, "required_actions": ["a"]}
    before, after = await first.evaluate(TALK, context), await again.evaluate(TALK, context)
    assert (after.score, after.breakdown) == (before.score, before.breakdown)


def test_every_built_in_reward_is_among_those_that_survive_their_config():
    """Mutation: an option that `to_config` loses."""
    entries = [entry for make in REWARDS.values() if "type" in (entry := make().to_config())]
    for entry in entries:
        optional = {key for key, option in KINDS[entry["type"]].options.items() if not option.file}
        assert optional <= {*entry, "reward_type", "ground_truth"}
    plain = {name for name, kind in KINDS.items() if kind.address.startswith("core.")}
    assert {entry["type"] for entry in entries} == plain


@pytest.mark.parametrize("name", ["politeness_reward", "plain", "Judge", "judge"])
async def test_a_custom_reward_is_the_same_after_its_config(folder, name):
    first = CompositeReward([load_reward(f"my_rewards.{name}", folder, weight=0.4)])
    again = build_rewards(json.loads(json.dumps(first.to_config())), base_dir=folder)
    assert again.to_config() == first.to_config()
    assert (await again.evaluate(TALK)).turn_rewards == (await first.evaluate(TALK)).turn_rewards


class Calm(SafetyReward):
    """Derived from a built-in reward, and none itself."""


class Strict(HelpfulnessReward):
    def __init__(self, bar):
        super().__init__()
        self.bar = bar


def flat(turns):
    return 0.5


@pytest.mark.parametrize(
    "reward",
    [
        Strict(0.9),
        FunctionReward(lambda turns: 0.5),
        FunctionReward(flat, reward_type="immediate"),
        FunctionReward(flat, maximum=0.5),
        Calm(reward_type="immediate"),
    ],
)
def test_a_reward_that_no_entry_can_make_again_is_marked_and_refused(reward):
    config = CompositeReward([reward]).to_config()
    assert config["functions"][0]["type"] == "custom"
    assert config["functions"][0]["rebuildable"] is False
    with pytest.raises(ConfigError, match="cannot be made again from its name alone"):
        build_rewards(config)


def test_a_class_that_derives_from_a_built_in_reward_is_written_as_itself():
    assert Calm(0.5).to_config() == {"type": "custom", "module": f"{__name__}.Calm", "weight": 0.5}


def test_problems_of_a_nested_reward_say_where_it_is():
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.functions\[1\]\.type is 'saftey'"):
        build_rewards([{"functions": [{"type": "safety"}, {"type": "saftey"}]}])
    with pytest.raises(ConfigError, match="rewards has the unknown key 'function'; did you mean 'functions'"):
        build_rewards({"function": []})


def test_a_reward_of_whole_groups_stands_alone(tmp_path):
    """Mutation: wrapped into a sum, which refuses it."""
    (tmp_path / "group_judge.py").write_text(
        "from stateset_agents.core.reward import GroupReward\n"
        "class Judge(GroupReward):\n"
        "    async def compare(self, conversations, context=None):\n"
        "        return [0.0] * len(conversations)\n"
    )
    entry = {"type": "custom", "module": "group_judge.Judge"}
    assert type(build_rewards([entry], base_dir=tmp_path)).__name__ == "Judge"
    with pytest.raises(ConfigError, match="use it alone"):
        build_rewards([entry, {"type": "safety"}], base_dir=tmp_path)


@pytest.mark.parametrize("dotted", ["os.system", "builtins.eval", "subprocess.run", "shutil.rmtree", "builtins.exit"])
def test_what_is_of_pythons_own_library_is_no_reward(dotted):
    with pytest.raises(ConfigError, match="of Python's own library, which does whatever a model writes"):
        load_reward(dotted, what="rewards[0].module")


def test_a_module_beside_the_config_may_be_called_as_one_of_pythons(tmp_path):
    (tmp_path / "chunk.py").write_text(
        "import functools\nimport os\n\n\ndef fine(turns, context=None):\n    return 0.5\n\n\n"
        "whole = functools.partial(fine, context={})\nrun = os.system\n"
    )
    assert import_dotted("chunk.fine", tmp_path)([]) == 0.5
    assert import_dotted("chunk.whole", tmp_path)([]) == 0.5
    with pytest.raises(ConfigError, match="Python's own library"):
        import_dotted("chunk.run", tmp_path)
    sys.modules.pop("chunk")
