"""The other name of `stateset_agents`.

Invariant: a module has one object, whichever name imports it, so that classes imported under both names are identical
and module state exists once. This holds for every submodule, listed nowhere: a finder answers each import of
`grpo_agent_framework.x.y` with the module `stateset_agents.x.y`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

import stateset_agents

_PREFIX = f"{__name__}."


class _AliasLoader(InspectLoader):
    """Hands over the module that has the other name; reads code and source through that module's own loader."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module under its own name, unless that has happened already."""
        module = import_module(self._spec.name)
        self._spec = module.__spec__ or self._spec
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back: the import system has just put the alias's in its place."""
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """The module's code, which `python -m` runs."""
        return self._inspect().get_code(self._spec.name)

    def get_source(self, fullname: str) -> str | None:
        """The module's source, which tracebacks show."""
        return self._inspect().get_source(self._spec.name)

    def is_package(self, fullname: str) -> bool:
        """Whether the module has submodules."""
        return self._spec.submodule_search_locations is not None

    def _inspect(self) -> InspectLoader:
        if not isinstance(self._spec.loader, InspectLoader):
            raise ImportError(f"the loader of {self._spec.name} cannot show its code", name=self._spec.name)
        return self._spec.loader


class _AliasFinder(MetaPathFinder):
    """Answers for everything below the alias, before the path finder would load a second copy from the same files."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        spec = find_spec(f"{stateset_agents.__name__}.{fullname.removeprefix(_PREFIX)}")
        if spec is None:
            return None
        alias = ModuleSpec(
            fullname, _AliasLoader(spec), origin=spec.origin, is_package=spec.submodule_search_locations is not None
        )
        alias.submodule_search_locations = spec.submodule_search_locations
        alias.has_location = spec.has_location
        return alias


sys.meta_path.insert(0, _AliasFinder())
sys.modules[__name__] = stateset_agents
