import pytest

from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.users import ScriptedUser
from stateset_agents.environments import MixedUser, ModelUser

MANY = [Scenario(f"s{n}", ("Hi", "Bye")) for n in range(1000)]


def test_shares_are_shares_of_many_scenarios_and_a_scenario_keeps_its_user(told):
    scripted, played = ScriptedUser(), ModelUser(told("more"))
    mixed = MixedUser([(7, scripted), (3, played)])
    by_scenario = {scenario.id: mixed.chosen(scenario) for scenario in MANY}
    assert sum(user is scripted for user in by_scenario.values()) == pytest.approx(700, abs=60)
    again = MixedUser([(0.7, scripted), (0.3, played)])
    assert {s.id: again.chosen(s) for s in reversed(MANY[::2])} == {s.id: by_scenario[s.id] for s in MANY[::2]}
    other = MixedUser([(7, scripted), (3, played)], seed=1)
    assert any(other.chosen(scenario) is not by_scenario[scenario.id] for scenario in MANY)


def test_each_of_several_users_has_its_share():
    users = [ScriptedUser(), ScriptedUser(), ScriptedUser()]
    mixed = MixedUser(list(zip((5, 3, 2), users, strict=True)))
    counts = [sum(mixed.chosen(scenario) is user for scenario in MANY) for user in users]
    assert counts == pytest.approx([500, 300, 200], abs=60)


def both(told):
    """A mixture, and a scenario of each member: the scripted one's, then the model's."""
    scripted, played = ScriptedUser(), ModelUser(told("more"), seed=5)
    mixed = MixedUser([(1, scripted), (1, played)])
    return mixed, [next(s for s in MANY if mixed.chosen(s) is user) for user in (scripted, played)]


async def test_each_scenario_is_played_by_its_own_user(told, talk):
    mixed, scenarios = both(told)
    assert [await mixed.opening(scenario) for scenario in scenarios] == ["Hi", "Hi"]
    assert [await mixed.reply(scenario, talk("Hi", "B")) for scenario in scenarios] == ["Bye", "more"]


def test_results_say_who_it_was(told):
    mixed, (scripted, played) = both(told)
    assert mixed.describe(scripted) == {"type": "scripted", "share": 0.5}
    assert mixed.describe(played)["seed"] == 5
    assert mixed.describe(played)["share"] == 0.5
    whole = mixed.describe()
    assert (whole["type"], whole["seed"], [user["type"] for user in whole["users"]]) == (
        "mixture",
        0,
        ["scripted", "model"],
    )


def test_a_scripted_member_needs_lines_on_its_own_scenarios_alone(told):
    mixed, (scripted, played) = both(told)
    blank = [Scenario(played.id), scripted]
    assert ConversationEnvironment(blank, user=mixed).scenarios == blank
    with pytest.raises(
        DataError, match=rf"scenarios of the scripted user\[0\] \(id '{scripted.id}'\) has no user turns"
    ):
        ConversationEnvironment([Scenario(scripted.id), Scenario(played.id)], user=mixed)


@pytest.mark.parametrize("members", [[], [(0, ScriptedUser())], [(True, ScriptedUser())], [("1", ScriptedUser())]])
def test_shares_are_numbers_above_zero(members):
    with pytest.raises(ConfigError, match="MixedUser"):
        MixedUser(members)
