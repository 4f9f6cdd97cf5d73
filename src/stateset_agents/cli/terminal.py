"""A person at a terminal, or a pipe in their place.

Invariant: what a model or a tool says is text and nothing else: no character of it moves the cursor, changes a colour,
hides what follows or turns its direction. Replies go to standard output, what is said about them to standard error.
"""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata

from rich.console import Console
from rich.text import Text

_JOINERS = "\u200c\u200d"
"""Of letters in some scripts and of parts of emojis."""
_PROMPT = "you> "


def visible(text: str) -> str:
    """`text` with line ends and tabs as they are, and every other character that is not printed as a name for it."""
    return "".join(char if _harmless(char) else _named(char) for char in text)


class Terminal:
    """Where the conversation is shown.

    Attributes:
        interactive: somebody types; otherwise lines come from a pipe or a file, and nothing asks for them.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace" if stream is sys.stdin else "backslashreplace")
        if self.interactive:
            with contextlib.suppress(ImportError):  # not on every platform; then there is no history
                import readline  # noqa: F401 - `input` has line editing and a history from it
        self._notes = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._in_line = False

    def ask(self) -> str | None:
        """The next line; None at the end of the input."""
        while True:
            try:
                return input(_PROMPT if self.interactive else "")
            except EOFError:
                if self.interactive:
                    print()
                return None
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print()
                self.note("Ctrl-D or /quit ends.")

    def say(self, text: str) -> None:
        """Show a piece of a reply, as it comes."""
        shown = visible(text)
        sys.stdout.write(shown)
        sys.stdout.flush()
        if shown:
            self._in_line = not shown.endswith("\n")

    def line(self, text: str) -> None:
        """Show whole lines of output that are no reply."""
        self.end_line()
        print(visible(text), flush=True)

    def end_line(self) -> None:
        """Begin a line of its own, unless one has just begun."""
        if self._in_line:
            print(flush=True)
        self._in_line = False

    def note(self, text: str) -> None:
        """Tell something about the conversation that is no part of it."""
        self.end_line()
        self._notes.print(Text(visible(text), style="dim"))


def _harmless(char: str) -> bool:
    if char.isprintable() or char in "\n\t" or char in _JOINERS:
        return True
    return unicodedata.category(char) == "Zs"  # a space of another width


def _named(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\u{{{code:x}}}"
