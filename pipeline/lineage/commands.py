"""`regrow trace`: which of the questions was asked, and the answer printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.lineage.fates import trace_row, trace_step
from pipeline.lineage.opened import Lineage, open_lineage
from pipeline.lineage.show import fate_lines, show_spans, step_lines
from pipeline.lineage.spans import trace_bin

_QUESTIONS = "Ask one thing: --packed BIN, --packed BIN:POSITION, --row SOURCE:ROW or --step STEP."


def trace(data: Path, *, packed: str | None, row: str | None, step: int | None, split: str, as_json: bool) -> None:
    """Answer the one question that is asked.

    Raises:
        RegrowError: none or several, or nothing can be found.
    """
    asked = [name for name, value in (("--packed", packed), ("--row", row), ("--step", step)) if value is not None]
    if len(asked) != 1:
        raise RegrowError(f"`regrow trace` was asked {' and '.join(asked) if asked else 'nothing'}.", _QUESTIONS)
    if split != "train" and packed is None:
        raise RegrowError(f"--split {split} belongs to --packed.", "Leave it out: --row looks at both, and steps train only.")
    lineage = open_lineage(data)
    if packed is not None:
        _trace_packed(lineage, packed, split, as_json=as_json)
    elif row is not None:
        found = trace_row(lineage, row)
        _print(found, fate_lines(found), as_json=as_json)
    elif step is not None:
        found = trace_step(lineage, step)
        _print(found, step_lines(found), as_json=as_json)


def _trace_packed(lineage: Lineage, text: str, split: str, *, as_json: bool) -> None:
    number, _, position = text.partition(":")
    if not number.isdecimal() or (position and not position.isdecimal()):
        raise RegrowError(f"--packed {text!r} names no bin.", "Write BIN or BIN:POSITION, two numbers from 0.")
    spans = trace_bin(lineage, split, int(number), int(position) if position else None)
    if as_json:
        _print_json({"split": split, "bin": int(number), "spans": list(spans)})
    else:
        show_spans(split, int(number), spans)


def _print(found: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
    else:
        print("\n".join(lines))


def _print_json(found: dict[str, Any]) -> None:
    print(json.dumps(found, indent=2, ensure_ascii=False))
