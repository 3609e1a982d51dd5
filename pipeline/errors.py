"""Errors a user can act on. The CLI prints them as one message and exits with their code."""

from __future__ import annotations

from typing import Any


class RegrowError(Exception):
    """Something the user gave cannot work.

    ``message`` says what was wrong and where (file, row, option, value found); ``remedy`` says what would work.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle of an exception calls its class with its message alone, which subclasses need not take.
        return _restored, (type(self), self.message, self.remedy)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


def _restored(kind: type[RegrowError], message: str, remedy: str | None) -> RegrowError:
    """An error as another process raised it."""
    error = kind.__new__(kind)
    RegrowError.__init__(error, message, remedy)
    return error


class StaleInput(RegrowError):
    """Something a stage depends on changed while it ran, or since `configure`: its result would be a lie."""

    exit_code = 70


class Interrupted(RegrowError):
    """A stage was asked to stop and saved its work. Non-zero, because DVC takes 0 as complete."""

    exit_code = 75


class MissingExtra(RegrowError):
    """An optional package is needed. Names the option that needs it and the extra that brings it."""

    def __init__(self, needed_for: str, package: str, extra: str) -> None:
        message = f"{needed_for} needs the package {package!r}, which is not installed."
        super().__init__(message, f"Install it with: pip install 'regrow[{extra}]'")
