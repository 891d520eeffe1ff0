"""One line on a terminal that says what takes so long; nothing at all in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO


class Progress:
    """A status line on `stream` (default: standard error), rewritten in place.

    Used as a context manager: the line is gone afterwards, also after an exception. Where the
    stream is no terminal, nothing is written.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._visible = self._stream.isatty()
        self._shown = 0

    def show(self, text: str) -> None:
        """Replace the line by `text`."""
        if not self._visible:
            return
        padding = " " * max(0, self._shown - len(text))
        self._stream.write(f"\r{text}{padding}")
        self._stream.flush()
        self._shown = len(text)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0

    def __enter__(self) -> Progress:  # noqa: PYI034  typing.Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()
