"""Values as YAML gives them, brought into the one form that the models check: no nulls, truth values as such."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.options.reading.wording import admits_bool, members, models_in

# YAML 1.1, which Axolotl reads, knows these as truth values; YAML 1.2 does not.
_TRUTH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def normal_form(model: type[BaseModel], values: dict[Any, Any]) -> dict[Any, Any]:
    """A copy of ``values`` in which a key with null is left out, as Axolotl does, and `yes`, `no`, 1 and 0 are truth values.

    Only the keys of options are looked at: a null inside a free mapping such as ``optim_args`` stays. A group of which every key is
    null is left out as well.
    """
    given = {key: value for key, value in values.items() if value is not None or key not in model.model_fields}
    formed = {key: _value(model.model_fields.get(key), value) for key, value in given.items()}
    return {key: value for key, value in formed.items() if value != {} or given[key] == {}}


def _value(field: FieldInfo | None, value: Any) -> Any:
    if field is None:
        return value
    if isinstance(value, str) and value.lower() in _TRUTH and _is_truth(field.annotation, value):
        return _TRUTH[value.lower()]
    if (
        isinstance(value, int)
        and value in (0, 1)
        and _is_truth(field.annotation, str(value))
        and not {int, float} & set(members(field.annotation))
    ):
        return bool(value)
    models = models_in(field.annotation)
    if models and isinstance(value, dict):
        return normal_form(models[0], value)
    if models and isinstance(value, list):
        return [normal_form(models[0], item) if isinstance(item, dict) else item for item in value]
    return value


def _is_truth(annotation: Any, word: str) -> bool:
    taken = [choice for item in members(annotation) if get_origin(item) is Literal for choice in get_args(item)]
    return admits_bool(annotation) and word not in taken and str not in members(annotation)
