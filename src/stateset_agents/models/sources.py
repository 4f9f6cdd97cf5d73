"""Where a model's files are.

Invariant: every name ends as a folder that passed the checks of `folders.py`, or as one ModelError that says what to
do; a machine without a network is told so in a second.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from ..core.errors import ModelError
from .embedded import INSTALL, embedded_folder, embedded_identity
from .facts import KNOWN
from .folders import ModelSource, check_folder, weight_hashes
from .hub import hub_source, is_cached
from .names import ALLOWED, EMBEDDED, EMBEDDED_ON_HUB, TINY, is_stub, names_a_folder


def find_source(name: str, *, trust_remote_code: bool = False) -> ModelSource:
    """Find a model's files.

    Args:
        name: `smollm2-135m-instruct`, a folder, or a name on the hub. (`tiny` and `stub://` have no files.)
        trust_remote_code: whether code that comes with the model may be fetched.

    Raises:
        ModelError: there is no such model, or it cannot be reached or must not be loaded.
    """
    if not name.strip():
        raise ModelError(f"the model name is empty; {_suggest(name)}")
    if name == EMBEDDED:
        folder = embedded_folder()
        if folder is not None:
            found = folder
            return ModelSource(name, lambda: found, embedded_identity, KNOWN[EMBEDDED])
        return _embedded_from_hub()
    if names_a_folder(name):
        folder = Path(name).expanduser()
        check_folder(folder)
        return ModelSource(name, lambda: folder, lambda path: {"name": name, "sha256": weight_hashes(path)})
    return hub_source(name, trust_remote_code=trust_remote_code, otherwise=_suggest(name))


def _embedded_from_hub() -> ModelSource:
    hint = f"{EMBEDDED} is not installed: {INSTALL}"
    return hub_source(EMBEDDED_ON_HUB, called=EMBEDDED, trust_remote_code=False, otherwise=hint)


def _suggest(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), [TINY, EMBEDDED], n=1)
    mean = f'did you mean "{close[0]}"? ' if close else ""
    return f"{mean}{ALLOWED}"


def lies_here(name: str) -> bool:
    """Whether a model can be loaded without downloading anything."""
    if is_stub(name) or name == TINY or (name == EMBEDDED and embedded_folder() is not None):
        return True
    if names_a_folder(name):
        return Path(name).expanduser().is_dir()
    return is_cached(EMBEDDED_ON_HUB if name == EMBEDDED else name)
