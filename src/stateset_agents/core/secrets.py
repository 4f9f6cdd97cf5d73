"""What is a secret, judged by its name, and texts without it.

Invariant: one rule for everything that is written, printed or sent: what one place hides, no other shows. A value that
the environment or a config holds under the name of a secret becomes `***`, wherever in a text it stands, tracebacks
included; so does anything that has the form of a well-known token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

_ANYWHERE = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "passwords", "pwd", "secret"}
_ANYWHERE |= {"secrets"}
_AT_THE_END = {"auth", "pass", "pat", "token"}
_OF_ACCESS = {"access", "api", "auth", "bearer", "refresh", "secret", "session"}
"""Words before `tokens` that make them secrets: others are counted, such as `max_new_tokens`."""
_HARMLESS = {"bos", "cls", "eos", "mask", "next", "pad", "sep", "special", "stop", "unk"}
_HARMLESS |= {"disable", "enable", "no", "require", "skip", "use", "with", "without"}
"""Words before `token` or `auth` that make it a piece of text, or a switch."""
_NOT_ALONE = {"key", "keys", "pass", "pat"}
"""Words that mean something else where they are the whole name."""


def is_secret(name: str) -> bool:
    """Whether a variable or a config key of this name holds a secret: `WANDB_API_KEY`, `authToken`, `DB_PASS`.

    The address of a webhook is one: whoever has it can post there. `webhook_env` is the name of a variable.

    `TOKENIZERS_PARALLELISM`, `max_new_tokens`, `eos_token`, `NO_AUTH`, a bare `key` and the shell's `PWD` are none.
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[^a-z]+", parted) if word]
    if not words or words in (["pwd"], ["oldpwd"]):  # the shell's working folder, in every environment
        return False
    if not _ANYWHERE.isdisjoint(words) or ("webhook" in words and words[-1] != "env"):
        return True
    if words[-1] in _NOT_ALONE:
        return len(words) > 1
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "tokens":
        return before in _OF_ACCESS
    return words[-1] in _AT_THE_END and before not in _HARMLESS


def is_variable(name: object) -> bool:
    """Whether this can name the environment variable that holds a secret, and is hardly the secret itself.

    Capitals, digits and underscores; an API key has small letters, and is easily put where its variable belongs.
    """
    return isinstance(name, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) is not None


MASK = "***"

_TOKEN_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abpr]-[A-Za-z0-9-]{10,}|(?-i:ey[JA]|ew[ok])[\w-]{10,}(\.[\w-]{10,}){2,4})"
    r"|(?<=authorization: bearer )[^\s\"',;]{8,}"
    r"|(?<=bearer )(?=[^\s\"',;]*[\d_+/=~]|[^\s\"',;]{20})[^\s\"',;]{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 8


class Redactor:
    """Replaces secrets in text.

    Attributes:
        secrets: the values that are replaced; shorter ones than 8 characters are left out, since replacing a "true"
            everywhere hides the text and no secret.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets: set[str] = set()
        for secret in secrets:
            self.add(secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Redactor:
        """A redactor for every secret of the environment, by default that of this process."""
        variables = os.environ if environment is None else environment
        return cls(value for name, value in variables.items() if is_secret(name))

    def add(self, secret: str) -> None:
        """Replace this value too, for example an auth token that came as a flag."""
        if len(secret) >= _SHORTEST_SECRET:
            self.secrets.add(secret)

    def __call__(self, text: str) -> str:
        """`text` with `***` in place of every secret."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return _TOKEN_FORMS.sub(MASK, text)
