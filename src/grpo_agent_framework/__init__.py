"""The other name of `stateset_agents`.

Invariant: a module has one object, whichever name imports it, so that classes imported under both names are identical
and module state exists once. This holds for every submodule, listed nowhere: a finder answers each import of
`grpo_agent_framework.x.y` with the module `stateset_agents.x.y`. The stub files beside this one tell type checkers,
which do not run finders, what the documented modules hold.
"""

import sys

import stateset_agents

from ._finder import AliasFinder

sys.meta_path.insert(0, AliasFinder(__name__, stateset_agents.__name__))
sys.modules[__name__] = stateset_agents
