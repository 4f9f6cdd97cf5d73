"""Objects named in a config by a dotted path, such as `my_rewards.politeness_reward`.

Invariant: a name is imported only if the operator's own config or code gave it, never from data, a request or a
checkpoint. It is looked up beside the config file first, then among the installed packages, and a file beside the
config never hides a package that is loaded already. Afterwards the config's folder stays at the end of `sys.path`, so
that the code that was found there can import its neighbours whenever it runs; what is installed comes before them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ConfigError, is_installed

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_PACKAGE = Path(__file__).parents[1]
_local: dict[str, Path] = {}
"""Top-level modules that were imported from a config's folder, and that folder."""


def import_dotted(dotted: str, base_dir: str | Path | None = None, *, what: str = "the name") -> Any:
    """Import the object that a dotted path names.

    Args:
        dotted: `module.attribute`; both may have several parts.
        base_dir: folder of the config file, searched first; None searches the installed packages only.
        what: the place it was named in, for messages, for example "rewards[2].module".

    Raises:
        ConfigError: it is no dotted path, the module is not found or raises on import, or has no such attribute; or it
            is of Python's own library, such as `os.system`, and was never written to be given what a model says.
    """
    if not isinstance(dotted, str) or not _DOTTED.fullmatch(dotted):
        raise ConfigError(f"{what} is {dotted!r}; it must be a dotted path such as my_module.my_name")
    folder = Path(base_dir).resolve() if base_dir is not None else None
    if folder is not None:
        _make_way(dotted.partition(".")[0], folder, what)
    module, attributes = _import_longest(dotted, folder, what)
    found: Any = module
    for name in attributes:
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, [n for n in vars(found) if not n.startswith("_")], n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise ConfigError(f'{what} is "{dotted}", but {module.__name__} has no "{name}"{hint}')
        found = getattr(found, name)
    if callable(found) and _is_pythons(found, module):
        raise ConfigError(
            f"{what} is {dotted!r}, of Python's own library, which does whatever a model writes; write a function or "
            "class around it that takes no more than the model may decide"
        )
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))
    return found


def named_code_that_raised(error: BaseException) -> str | None:
    """File and line in code beside a config that raised, or that made an installed package raise; None if no such did.

    Where this package's own code raised on behalf of that code, nobody can tell whose fault it is: None.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and not is_installed(frame.filename):
            beside = any(Path(frame.filename).is_relative_to(folder) for folder in _local.values())
            own = Path(frame.filename).is_relative_to(_PACKAGE)
            return f"{Path(frame.filename).name}, line {frame.lineno}" if beside and not own else None
    return None


def _is_pythons(found: object, module: ModuleType) -> bool:
    """Whether an object, or the module that it was found in, is of the standard library and not beside the config."""
    made_in = getattr(found, "__module__", None) if inspect.isroutine(found) or inspect.isclass(found) else None
    tops = {name.partition(".")[0] for name in (module.__name__, str(made_in))}
    return bool((tops - _local.keys()) & sys.stdlib_module_names)


def _make_way(top: str, folder: Path, what: str) -> None:
    """Forget a module of the same name from another config's folder; refuse to hide one from anywhere else."""
    file = next((path for path in (folder / f"{top}.py", folder / top / "__init__.py") if path.is_file()), None)
    loaded = sys.modules.get(top)
    if file is None or loaded is None or _local.get(top) == folder:
        return
    origin = getattr(loaded, "__file__", None)
    if origin is not None and Path(origin).resolve() == file:
        return
    if top not in _local:
        raise ConfigError(
            f'{what} names "{top}", which is {file}, but another module of that name is loaded already '
            f"({origin or 'built in'}); rename the file"
        )
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]


def _import_longest(dotted: str, folder: Path | None, what: str) -> tuple[ModuleType, list[str]]:
    """The module of the longest prefix that is one, and the attribute names that are left."""
    parts = dotted.split(".")
    path = sys.path[:]
    if folder is not None:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    try:
        for length in range(len(parts) - 1, 0, -1):
            name = ".".join(parts[:length])
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                    continue
                raise ConfigError(f'{what} is "{dotted}", and importing {name} raised {error!r}') from error
            except Exception as error:
                raise ConfigError(f'{what} is "{dotted}", and importing {name} raised {error!r}') from error
            if folder is not None and Path(getattr(module, "__file__", None) or "/").resolve().is_relative_to(folder):
                _local[parts[0]] = folder
            return module, parts[length:]
    finally:
        sys.path[:] = path
    where = f"{folder} or among the installed packages" if folder is not None else "the installed packages"
    raise ConfigError(f'{what} is "{dotted}", but there is no module "{parts[0]}" in {where}')
