"""A row as one line of JSON, whatever its source could hold.

What JSON has no value for is converted, always in the same way:

* numbers that are not finite (NaN, infinities) become null;
* timestamps, dates and times become ISO 8601 text, durations seconds;
* decimals and UUIDs become the text of their digits, nothing rounded;
* bytes become text where they are UTF-8, and otherwise ``{"base64": ...}``;
* maps become objects whose keys are text.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID


def to_line(row: Any) -> bytes:
    """One row as JSON, without a line end.

    Raises:
        TypeError: a value of a kind that is not listed above.
    """
    try:
        text = _ENCODER.encode(row)
    except ValueError:  # a number that is not finite
        text = _ENCODER.encode(_finite(row))
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: kept as the escape that it came from
        return _ASCII.encode(_finite(row)).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, bytes):
        return _text_of(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def _text_of(value: bytes) -> Any:
    """Some writers of Parquet leave out that a column is text."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
_ASCII = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)
