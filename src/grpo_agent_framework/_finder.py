"""The finder behind the alias: a module imported under the alias is the module of the real name.

Invariant: an import under the alias changes nothing about the module; its `__name__` and `__spec__` stay its own, so
that reloading it and finding its files keep working.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType


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


class AliasFinder(MetaPathFinder):
    """Answers for everything below the alias.

    It has to stand before the path finder, which would load a second copy from the same files.
    """

    def __init__(self, alias: str, real: str) -> None:
        self._alias = f"{alias}."
        self._real = f"{real}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that yields the real module; None where there is none, so that the error names the alias."""
        if not fullname.startswith(self._alias):
            return None
        spec = find_spec(self._real + fullname.removeprefix(self._alias))
        if spec is None:
            return None
        alias = ModuleSpec(fullname, _AliasLoader(spec), origin=spec.origin)
        alias.submodule_search_locations = spec.submodule_search_locations
        return alias
