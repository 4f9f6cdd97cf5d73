"""What is a secret, judged by its name.

Invariant: one rule for everything that is written, printed or sent: what one place hides, no other shows.
"""

from __future__ import annotations

import re

_ANYWHERE = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "passwords", "pwd", "secret"}
_ANYWHERE |= {"secrets"}
_AT_THE_END = {"auth", "pass", "pat", "token"}
_NOT_ALONE = {"key", "keys", "pass", "pat"}
"""Words that mean something else where they are the whole name."""


def is_secret(name: str) -> bool:
    """Whether a variable or a config key of this name holds a secret: `WANDB_API_KEY`, `authToken`, `DB_PASS`.

    `TOKENIZERS_PARALLELISM`, `max_new_tokens`, `top_k`, a bare `key` and the shell's `PWD` are none.
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[^a-z]+", parted) if word]
    if not words or words in (["pwd"], ["oldpwd"]):  # the shell's working folder, in every environment
        return False
    if not _ANYWHERE.isdisjoint(words):
        return True
    if words[-1] in _NOT_ALONE:
        return len(words) > 1
    return words[-1] in _AT_THE_END


def is_variable(name: object) -> bool:
    """Whether this can name the environment variable that holds a secret, and is hardly the secret itself.

    Capitals, digits and underscores; an API key has small letters, and is easily put where its variable belongs.
    """
    return isinstance(name, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) is not None
