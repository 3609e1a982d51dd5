"""Signals to a run: SIGTERM or SIGINT ends it at the next step with a complete checkpoint, SIGUSR1 only writes one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ONE_REQUEST = 1.0
"""Seconds in which signals are one request. `timeout`, systemd and Slurm send theirs to every process, `regrow train` passes it on,
and the kernel tells of DVC's death: one stop, three signals."""


class Requests:
    """What was asked for since the last step.

    Attributes:
        stop: the signal that asks for the end of the run.
        since: when it came, in seconds of the monotonic clock.
    """

    stop: signal.Signals | None = None
    since = 0.0
    _save = False

    def ask_for_checkpoint(self) -> None:
        """A checkpoint after this step."""
        self._save = True

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for, once."""
        asked, self._save = self._save, False
        return asked


@contextmanager
def stopped_anywhere() -> Iterator[None]:
    """Turn SIGTERM and SIGINT outside of the steps, which watch themselves, into an end with a message.

    Raises:
        Interrupted: one came while the model was loaded or written, or a second one during a step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "Training was stopped where it could save nothing since its newest checkpoint.",
            "Run the same command again: it goes on from there, or begins.",
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def watch_signals(*, checkpoints: bool = False) -> Iterator[Requests]:
    """Turn the first SIGTERM or SIGINT into a request; one that comes later acts as if nobody watched.

    With ``checkpoints`` every SIGUSR1 asks for a checkpoint; without, it does what it does to any process.
    Python delivers signals to the main thread only; from another one nothing is watched.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    watched = (*_SIGNALS, signal.SIGUSR1) if checkpoints else _SIGNALS
    previous: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in watched}

    def restore(numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            signal.signal(number, previous[number])

    def remember(number: int, _frame: FrameType | None) -> None:
        if requests.stop is None:
            requests.stop, requests.since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - requests.since > _ONE_REQUEST:
            restore(_SIGNALS)
            signal.raise_signal(number)

    for number in _SIGNALS:
        signal.signal(number, remember)
    if checkpoints:
        signal.signal(signal.SIGUSR1, lambda *_: requests.ask_for_checkpoint())
    try:
        yield requests
    finally:
        restore(watched)
