"""The one checkpoint format: a folder of safetensors and JSON with a manifest, written atomically.

Invariant: a reader finds the old checkpoint or the new one, whole, whatever was killed when. Importing this room does
not load torch.
"""

from __future__ import annotations

from .locate import (
    CHECKPOINTS,
    FINAL_MODEL,
    PROGRESS,
    clean_stale_temporaries,
    latest_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    resolve_checkpoint,
    step_folder,
)
from .manifest import FileEntry, Manifest
from .reader import Checkpoint, holds_the_same, read_checkpoint
from .writer import write_checkpoint

__all__ = [
    "CHECKPOINTS",
    "FINAL_MODEL",
    "PROGRESS",
    "Checkpoint",
    "FileEntry",
    "Manifest",
    "clean_stale_temporaries",
    "holds_the_same",
    "latest_checkpoint",
    "list_checkpoints",
    "prune_checkpoints",
    "read_checkpoint",
    "resolve_checkpoint",
    "step_folder",
    "write_checkpoint",
]
