"""Ways to damage values, JSON documents and bytes. Everything follows from the random.Random that is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

LONG = 20_000

ODD_TEXTS = (
    "",
    " ",
    "\n\n",
    "\x00",
    "\x1b[31m\x07",
    "\ud800",
    "a\udc00b",
    "\ufeff",
    "\u202egnp.exe",
    "é" * 3,
    "e\u0301",
    "👩‍👩‍👧",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{instruction}",
    "{0.__class__}",
    "%s%n",
    "<|im_end|>",
    "<|im_start|>system\n",
    "null",
    "NaN",
    "[",
    '{"role": "user"}',
    "../../etc/passwd",
    "'; DROP TABLE rows; --",
    "a" * LONG,
)
ODD_VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda rng: None,
    lambda rng: rng.choice([True, False]),
    lambda rng: rng.choice([0, 1, -1, 7, 2**31, 2**63, -(2**64), 10**300]),
    lambda rng: rng.choice([0.0, -0.5, 1e308, float("nan"), float("inf"), float("-inf")]),
    lambda rng: rng.choice(ODD_TEXTS),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [odd(rng) for _ in range(rng.randint(1, 3))],
    lambda rng: {rng.choice(["role", "content", "text", "value", "", "\ud800", "a"]): odd(rng)},
    lambda rng: nested(rng.choice([10, 200, 700]), rng.choice([list, dict])),
)


def odd(rng: Random) -> Any:
    """A value that hardly anything expects."""
    return rng.choice(ODD_VALUES)(rng)


def nested(depth: int, kind: type) -> Any:
    """Lists in lists, or objects in objects."""
    value: Any = "deep"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def damaged(value: Any, rng: Random, changes: int = 1) -> Any:
    """A JSON value with something wrong in one place or several, at any depth."""
    for _ in range(changes):
        value = _damaged_once(value, rng)
    return value


def _damaged_once(value: Any, rng: Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        return _damaged_object(value, rng)
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        changed = rng.choice(["inside", "inside", "inside", "gone", "twice", "new"])
        middle = {"inside": [_damaged_once(value[place], rng)], "gone": [], "twice": [value[place]] * 2, "new": [odd(rng), value[place]]}
        return [*value[:place], *middle[changed], *value[place + 1 :]]
    return odd(rng)


def _damaged_object(value: dict[str, Any], rng: Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    changed = rng.choice(["inside", "inside", "inside", "gone", "renamed", "more"])
    if changed == "inside":
        return value | {key: _damaged_once(value[key], rng)}
    rest = {name: item for name, item in value.items() if name != key}
    if changed == "gone":
        return rest
    if changed == "renamed":
        return rest | {key.upper() + rng.choice(["", "_", " "]): value[key]}
    return value | {rng.choice(["extra", "tools", "system", "weight", "train", "input_ids", "thinking", ""]): odd(rng)}


def damaged_bytes(raw: bytes, rng: Random) -> bytes:
    """Bytes that are cut, changed, repeated, or have foreign ones in them."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(raw) + 1)
        end = min(len(raw), start + rng.choice([1, 1, 4, 64, 4096]))
        foreign = rng.choice(
            [b"", bytes([rng.randrange(256)]), rng.randbytes(8), b"\xff\xfe", b"\0" * 16, b'"', b"{", b"]", raw[start:end] * 2]
        )
        raw = rng.choice([raw[:start], raw[:start] + foreign + raw[end:], raw[:start] + foreign + raw[start:]])
    return raw


def as_json(value: Any) -> str:
    """JSON as Python writes it: NaN and Infinity are words, half of a surrogate pair is an escape."""
    return json.dumps(value)
