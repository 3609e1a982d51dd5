"""A value of an option's type that is not its default, made from the annotation and its limits."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from pipeline.options.catalogue import Option
from pipeline.options.reading.statuses import asks_for_nothing
from pipeline.options.reading.wording import members

SPECIAL = {
    "sequence_len": 768,
    "min_sample_len": 5,
    "max_steps": 500,
    "datasets.path": "other.jsonl",
    "datasets.type": "completion",
    "chat_template": "chatml",
    "quantize.group_size": 64,
    "quantization.group_size": 64,
    "qat.group_size": 64,
}


def effective_value(option: Option) -> Any:
    """A value that asks for something."""
    if option.place in SPECIAL:
        return SPECIAL[option.place]
    return next(
        value for value in _candidates(option.field) if _is_valid(option.field, value) and not asks_for_nothing(option.field, value)
    )


def _is_valid(field: FieldInfo, value: Any) -> bool:
    try:
        TypeAdapter(field.annotation, config={"arbitrary_types_allowed": True}).validate_python(value)
    except ValueError:
        return False
    limits = [(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt", "min_length") if hasattr(item, name)]
    tests = {
        "ge": lambda v, x: v >= x,
        "gt": lambda v, x: v > x,
        "le": lambda v, x: v <= x,
        "lt": lambda v, x: v < x,
        "min_length": lambda v, x: len(v) >= x,
    }
    return all(getattr(item, name) is None or tests[name](value, getattr(item, name)) for item, name in limits)


def _candidates(field: FieldInfo) -> list[Any]:
    found: list[Any] = []
    for item in members(field.annotation):
        found += _of_type(item)
    return found


def _of_type(annotation: Any) -> list[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return list(arguments)
    if origin is list:
        values = _of_members(arguments[0])
        return [values[:2], *([value] for value in values), *([value, value] for value in values)]
    if origin is tuple:
        return [[_of_members(item)[0] for item in arguments]]
    if origin is dict:
        return [{_of_members(arguments[0])[0]: value} for value in _of_members(arguments[1])]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [
            {name: _candidates(inner)[0] for name, inner in annotation.model_fields.items() if inner.is_required()} or _one_key(annotation)
        ]
    plain: dict[Any, list[Any]] = {
        bool: [True, False],
        int: [3, 0, 7],
        float: [0.25, 3.5, 0.75],
        str: ["something", "another"],
        Any: ["something"],
        dict: [{"a": 1}],
    }
    return plain.get(annotation, [])


def _of_members(annotation: Any) -> list[Any]:
    return [value for item in members(annotation) for value in _of_type(item)]


def _one_key(model: type[BaseModel]) -> dict[str, Any]:
    name, field = next(iter(model.model_fields.items()))
    return {name: next(value for value in _candidates(field) if _is_valid(field, value) and value != field.default)}
