"""A polite stop: SIGTERM or SIGINT ends training at the next step, with a complete checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a stop was asked for, and by which signal."""

    received: signal.Signals | None = None


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or SIGINT into a request; the second acts as if nobody watched.

    Python delivers signals to the main thread only; from another one nothing is watched.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        request.received = signal.Signals(number)
        restore()

    for number in _SIGNALS:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        restore()
