"""Keeping secrets out of what a run writes and sends.

Invariant: a value that the environment or a config holds under the name of a secret leaves this process as `***`,
wherever in a text it stands, tracebacks included; so does anything that has the form of a well-known token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.secrets import is_secret

MASK = "***"

_TOKEN_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abpr]-[A-Za-z0-9-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
    r"|(?<=bearer )[^\s\"',;]{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
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


def redact_config(config: Mapping[str, Any], redactor: Redactor | None = None) -> dict[str, Any]:
    """A copy of a nested config in which secret keys have `***` as their value and texts are redacted."""
    clean = redactor or Redactor.from_environment()

    def walk(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [walk(item) for item in value]
        if isinstance(value, Mapping):
            return redact_config(value, clean)
        return clean(value) if isinstance(value, str) else value

    return {key: MASK if value and is_secret(key) else walk(value) for key, value in config.items()}
