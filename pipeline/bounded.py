"""Bounds of time and memory for what comes with a model and is run here: chat templates.

Jinja's sandbox keeps a template from reaching anything; it bounds the length of a ``range`` and nothing else. Loops in loops, a
text times 10**9 or a power of a power would take all the time or memory there is. So whatever compiles or renders a template does
it inside :class:`Bounded`. What reaches the bounds ends the run: how much a machine manages must not decide which rows are used.
"""

from __future__ import annotations

import mmap
import signal
import threading
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit, setrlimit
from types import FrameType, TracebackType
from typing import NoReturn

from pipeline.errors import RegrowError

SECONDS = 30.0
"""CPU time for one text."""

BYTES = 2**32
"""Address space by which the process may grow for one text."""

_MEASURED_EVERY = 256
"""Uses. To ask the size of the process takes longer than to render a short conversation."""

_REMEDY = "Choose another chat template: this one does not end, or its text grows without end."


class OutOfBounds(BaseException):
    """Not an Exception: errors of a template are caught where rows are left out, and this is none of them."""


class Bounded:
    """``with bounded:`` ends what takes more than :data:`SECONDS` or :data:`BYTES`. One object serves many times, at 3 us each.

    A timer of CPU time needs the main thread, which all stages run in; in another one memory alone is bounded.

    Raises:
        RegrowError: a bound is reached; ``what`` is what the message calls it.
    """

    __slots__ = ("_inner", "_outer", "_timed", "_used", "_what")

    def __init__(self, what: str) -> None:
        self._what, self._used = what, 0
        self._timed = threading.current_thread() is threading.main_thread()
        if self._timed:
            signal.signal(signal.SIGPROF, _stop)

    def __enter__(self) -> None:
        if self._used % _MEASURED_EVERY == 0:
            self._outer = getrlimit(RLIMIT_AS)
            most = _size() + BYTES
            self._inner = (most if self._outer[0] == RLIM_INFINITY else min(most, self._outer[0]), self._outer[1])
        self._used += 1
        setrlimit(RLIMIT_AS, self._inner)
        if self._timed:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
        setrlimit(RLIMIT_AS, self._outer)
        if kind is None:
            return
        if issubclass(kind, OutOfBounds):
            raise RegrowError(f"{self._what} takes more than {SECONDS:g} s of CPU time for one text.", _REMEDY) from None
        if issubclass(kind, MemoryError):
            raise RegrowError(f"{self._what} takes more than {BYTES / 2**30:g} GiB of memory for one text.", _REMEDY) from None


def _stop(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise OutOfBounds


def _size() -> int:
    """Bytes of address space that the process has."""
    return int(Path("/proc/self/statm").read_bytes().split(None, 1)[0]) * mmap.PAGESIZE
