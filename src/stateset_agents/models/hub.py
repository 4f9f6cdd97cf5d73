"""A name on the Hugging Face hub to a local snapshot.

Invariant: one request decides; without a network the local cache decides, at once and without retries. The revision
is pinned by that request, only root-level safetensors, JSON and tokenizer files are fetched, and refusals come before
the download.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

from ..core.errors import ModelError
from .facts import ModelFacts, common_dtype
from .folders import PICKLED, ModelSource, check_folder, refuse_pickled

TIMEOUT_SECONDS = 5.0
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]

log = logging.getLogger(__name__)


def hub_source(name: str, *, trust_remote_code: bool, otherwise: str, called: str | None = None) -> ModelSource:
    """Find a model on the hub or in its local cache.

    Args:
        name: `model` or `owner/model`.
        trust_remote_code: whether to fetch the Python files too.
        otherwise: what the user could do, for the message when the model cannot be had.
        called: the name by which the user asked for it, if another.

    Raises:
        ModelError: no such model, no access, no safetensors weights, or neither network nor cached copy.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    shown = called or name
    try:
        info = HfApi().model_info(name, timeout=TIMEOUT_SECONDS)
    except HFValidationError as error:
        raise ModelError(f'"{name}" is no model name; {otherwise}') from error
    except GatedRepoError as error:
        raise ModelError(_gated(name)) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f'there is no folder "{name}" here and no public model of that name on the hub '
            f"(for a private one set HF_TOKEN); {otherwise}"
        ) from error
    except (HfHubHTTPError, OSError, _transport_error()) as error:
        return _cached(name, shown, otherwise, reason=_first_line(error))
    files = [sibling.rfilename for sibling in info.siblings or []]
    _check_listing(name, files)
    if called:
        log.warning("%s: taking %s from the hub instead (%s)", called, name, otherwise)
    wanted = [*_WANTED, "*.py"] if trust_remote_code else _WANTED

    def fetch() -> Path:
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, revision=info.sha, allow_patterns=wanted, ignore_patterns=["*/*"]))
        except GatedRepoError as error:
            raise ModelError(_gated(name)) from error
        except (HfHubHTTPError, OSError, _transport_error()) as error:
            raise ModelError(f"{name} could not be downloaded: {error}. Start again to go on with it.") from error
        check_folder(folder)
        return folder

    return ModelSource(shown, fetch, lambda _: {"name": shown, "hub": name, "revision": info.sha}, _facts(info))


def _cached(name: str, shown: str, otherwise: str, *, reason: str) -> ModelSource:
    """The copy in the local cache, for a machine without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f'"{shown}" is no folder here, the hub cannot be reached ({reason}), and no copy is cached; {otherwise}'
        ) from error
    check_folder(folder)
    log.warning("%s: the hub cannot be reached (%s), taking the cached copy", shown, reason)
    return ModelSource(shown, lambda: folder, lambda path: {"name": shown, "hub": name, "revision": path.name})


def is_cached(name: str) -> bool:
    """Whether the local cache has a copy of a model. The hub is not asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(name, local_files_only=True)
    except (HFValidationError, LocalEntryNotFoundError):
        return False
    return True


def _check_listing(name: str, files: list[str]) -> None:
    root = [file for file in files if "/" not in file]
    if "config.json" not in root:
        raise ModelError(f"{name} on the hub has no config.json: not a model that transformers can load")
    if not any(file.endswith(".safetensors") for file in root):
        pickled = [file for file in root if file.endswith(PICKLED)]
        if pickled:
            raise ModelError(refuse_pickled(f"{name} on the hub", pickled))
        raise ModelError(f"{name} on the hub has no safetensors weights")


def _facts(info: Any) -> ModelFacts | None:
    """Size from the hub's own count of parameters; None where it has none (the files then tell)."""
    counted = getattr(info, "safetensors", None)
    if counted is None or not counted.total:
        return None
    return ModelFacts.of(info.config or {}, counted.total, common_dtype(counted.parameters))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _gated(name: str) -> str:
    return f"{name} is gated: accept its terms on its hub page, then set HF_TOKEN"


def _transport_error() -> type[Exception]:
    """Base of the connection errors of the HTTP client that huggingface_hub uses (its releases differ in which)."""
    from huggingface_hub import get_session

    client = import_module(type(get_session()).__module__.partition(".")[0])
    error: type[Exception] = client.HTTPError
    return error
