"""What is no user, no persona and no folder is told where it is given, not by the first episode."""

import pytest

from stateset_agents.core.environment import ConversationEnvironment, TaskEnvironment
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.users import ScriptedUser
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.environments import MixedUser, ModelUser

SCENARIOS = [{"user_responses": ["Hi"]}]
TASKS = [{"goal": "g"}]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ModelUser(None), "ModelUser: model is None; it must have `complete` and `describe`, as Endpoint"),
        (lambda: ModelUser("gpt"), "ModelUser: model is 'gpt'; it must have"),
        (lambda: ModelUser(Endpoint), "ModelUser: model is <class"),
        (lambda: TaskEnvironment(TASKS, persona=5), "persona is 5; it must be text that says who the user is, or None"),
        (lambda: ConversationEnvironment(SCENARIOS, persona=["a"]), "persona is ['a']; it must be text"),
        (lambda: TaskEnvironment(TASKS, user="x"), "user is 'x'; it must be an object with `opening` and `reply`"),
        (lambda: ConversationEnvironment(SCENARIOS, user="x"), "user is 'x'; it must be an object with"),
        (lambda: ConversationEnvironment(SCENARIOS, user=ScriptedUser), "user is <class"),
        (lambda: TaskEnvironment(TASKS, base_dir=5), "base_dir is 5; it must be a folder's path, or None"),
        (lambda: MixedUser([1]), "MixedUser: members[0] is 1; it must be (share, user)"),
        (lambda: MixedUser("ab"), "MixedUser: members is 'ab'; it must be a list of at least one (share, user)"),
        (lambda: MixedUser([(1, ScriptedUser()), (1, 2, 3)]), "MixedUser: members[1] is (1, 2, 3); it must be"),
        (lambda: MixedUser([(1, "x")]), "MixedUser: the user of members[0] is 'x'; it must be an object with"),
        (lambda: MixedUser(None), "MixedUser: members is None; it must be"),
    ],
)
def test_it_is_refused_with_its_place_and_the_way_out(make, told):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(told)
