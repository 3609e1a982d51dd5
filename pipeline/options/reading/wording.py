"""What a field takes, in words: from its annotation and constraints."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping", list: "a list", Any: "anything"}
_LIMITS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "not empty",
    "pattern": "matching {}",
}


def takes(field: FieldInfo) -> str:
    """For example ``a whole number, at least 1`` or ``one of "lora", "qlora"``."""
    limits = [
        words.format(limit)
        for item in field.metadata
        for name, words in _LIMITS.items()
        if (limit := getattr(item, name, None)) is not None
    ]
    return ", ".join([words_of(field.annotation), *limits])


def words_of(annotation: Any) -> str:
    """A type in words, without its constraints."""
    alternatives = [item for item in members(annotation) if item is not type(None)]
    choices = [choice for item in alternatives if get_origin(item) is Literal for choice in get_args(item)]
    words = [_one(item) for item in alternatives if get_origin(item) is not Literal]
    if choices:
        listed = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)
        words.insert(0, f"one of {listed}" if len(choices) > 1 else listed)
    return " or ".join(dict.fromkeys(words))


def members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union, flat; the annotation itself when it is none."""
    if get_origin(annotation) in (Union, types.UnionType):
        for item in get_args(annotation):
            yield from members(item)
    elif get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    else:
        yield annotation


def _one(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"a list of {words_of(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} ({', '.join(words_of(item) for item in arguments)})"
    if origin is dict:
        return f"a mapping from {words_of(arguments[0])} to {words_of(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping of its own options"
    return str(annotation)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The option models a value of this type may be, or may hold as list items."""
    found: list[type[BaseModel]] = []
    for item in members(annotation):
        if get_origin(item) is list:
            found += models_in(get_args(item)[0])
        elif isinstance(item, type) and issubclass(item, BaseModel):
            found.append(item)
    return found


def admits_bool(annotation: Any) -> bool:
    """Whether ``true`` is a value of this type. Pydantic would take it for the number 1."""
    return any(
        item in (bool, Any) or item is dict or (get_origin(item) is Literal and any(isinstance(c, bool) for c in get_args(item)))
        for item in members(annotation)
    )
