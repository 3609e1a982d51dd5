"""Progress of long work: rows, tokens, tokens/s, time left. Draws a bar on a terminal and is quiet elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Task:
    """One counted piece of work. ``advance`` is all a stage calls; drawing is somebody else's business."""

    name: str
    total: int | None
    unit: str
    done: int = 0
    tokens: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1, *, tokens: int = 0, note: str | None = None) -> None:
        """Count ``count`` more units (and ``tokens`` tokens among them); ``note`` replaces the text at the end of the bar."""
        self.done += count
        self.tokens += tokens
        if note is not None:
            self.note = note

    def rate(self) -> str:
        elapsed = time.monotonic() - self.started
        return f"{self.tokens / elapsed:,.0f} tok/s" if self.tokens and elapsed > 0 else ""


class Progress:
    """What a stage reports to. This one is silent; :class:`TerminalProgress` draws."""

    @contextmanager
    def task(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """A counted task. ``total`` in ``unit``; ``None`` when it is not known beforehand."""
        yield Task(name, total, unit)

    def say(self, message: str) -> None:
        """One line worth knowing: a default that was chosen, a row that was left out."""
        print(message, file=sys.stderr, flush=True)


class _DrawnTask(Task):
    """A task that redraws its bar whenever it is advanced."""

    def __init__(self, name: str, total: int | None, unit: str, bar: Any) -> None:
        super().__init__(name, total, unit)
        self._bar = bar
        self._id = bar.add_task(name, total=total, unit=unit, rate="", note="")

    def advance(self, count: int = 1, *, tokens: int = 0, note: str | None = None) -> None:
        super().advance(count, tokens=tokens, note=note)
        self._bar.update(self._id, completed=self.done, rate=self.rate(), note=self.note)


class TerminalProgress(Progress):
    """Bars on standard error, drawn by rich."""

    def __init__(self) -> None:
        self._bar: Any = None

    @contextmanager
    def task(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=Console(stderr=True)) as bar:
            self._bar = bar
            try:
                yield _DrawnTask(name, total, unit, bar)
            finally:
                self._bar = None

    def say(self, message: str) -> None:
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            super().say(message)


def open_progress() -> Progress:
    """Bars where somebody is looking, silence in logs and pipes."""
    return TerminalProgress() if sys.stderr.isatty() else Progress()
