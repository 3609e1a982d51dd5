"""Runs one input through a public door and says how that ended. Only two endings are right: done, or refused with one message."""

from __future__ import annotations

import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from pipeline.errors import RegrowError

LONGEST = 60
"""Seconds of wall time after which an input counts as one that hangs."""

LONGEST_MESSAGE = 20_000
"""Characters. What refuses an input must be something that a person can read."""


class Hung(BaseException):
    """An input took longer than :data:`LONGEST`. No `except Exception` may swallow it."""


@dataclass(frozen=True)
class Rows:
    """What became of the rows of an input: each is used, or counted and named."""

    used: int = 0
    counted: int = 0


@dataclass(frozen=True)
class Tried:
    """How one input ended.

    Attributes:
        kind: what was damaged.
        what: the damage, enough to make it again with the same seed.
        ending: done, refused (exit code 2 and one message), traceback, or hung.
        inputs: how many damaged things it held (rows, mostly).
        said: the message of a refusal, or the traceback.
    """

    kind: str
    what: str
    ending: str
    inputs: int = 1
    rows: Rows = field(default_factory=Rows)
    said: str = ""
    seconds: float = 0.0


def judge(kind: str, what: str, action: Callable[[], Rows | None], inputs: int = 1) -> Tried:
    """Run ``action``. A wrong count is an AssertionError of the action's, and counts as a traceback."""
    started = time.monotonic()
    rows, ending, said = Rows(), "done", ""
    try:
        with _limited(LONGEST):
            rows = action() or Rows()
    except Hung:
        ending, said = "hung", traceback.format_exc()
    except RegrowError as error:
        said = str(error)
        is_right = error.exit_code == 2 and said.strip() and "Traceback" not in said and len(said) <= LONGEST_MESSAGE
        ending = "refused" if is_right else "traceback"
    except (Exception, SystemExit):
        ending, said = "traceback", traceback.format_exc()
    return Tried(kind, what, ending, inputs, rows, said, time.monotonic() - started)


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def table(tried: list[Tried]) -> str:
    """One line for each kind of input, as Markdown."""
    lines = [
        "| damaged | inputs | rows used | rows left out, named | runs done | runs refused (exit 2) | tracebacks | hangs | slowest (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(one.kind for one in tried))
    for name, some in [*((kind, [one for one in tried if one.kind == kind]) for kind in kinds), ("**all**", tried)]:
        endings: Mapping[str, int] = Counter(one.ending for one in some)
        cells = [sum(one.inputs for one in some), sum(one.rows.used for one in some), sum(one.rows.counted for one in some)]
        cells += [endings[ending] for ending in ("done", "refused", "traceback", "hung")]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {max((one.seconds for one in some), default=0):.1f} |")
    return "\n".join(lines)
