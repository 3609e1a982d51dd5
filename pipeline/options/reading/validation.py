"""A plain mapping against the option models: every problem at once, with the path of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.options.reading.newer import is_newer
from pipeline.options.reading.problems import MISSING, Problem, dotted
from pipeline.options.reading.source import Place
from pipeline.options.reading.wording import admits_bool, models_in, takes
from pipeline.options.schema import facts_of

_NEAR = 0.75
_SECRET_ENDS = ("token", "api_key", "access_key", "passwd", "credentials")
_SECRET_WORDS = ("secret", "password")


def shape_problems(model: type[BaseModel], values: dict[Any, Any]) -> list[Problem]:
    """Unknown keys at any depth, wrong types, values out of range, required keys that are missing."""
    walked = list(_walk(model, values, (), model))
    return walked + _pydantic_problems(model, values, {problem.path for problem in walked})


def _walk(model: type[BaseModel], values: dict[Any, Any], path: Place, root: type[BaseModel]) -> Iterator[Problem]:
    """What pydantic would not say well: unknown keys, and truth values where a number is meant."""
    for key, value in values.items():
        here = (*path, key)
        field = model.model_fields.get(key)
        if field is None:
            yield _unknown(here, value, model, root)
        elif isinstance(value, bool) and not admits_bool(field.annotation):
            yield Problem(here, value, f"expected {takes(field)}", _example(here, field))
        else:
            yield from _walk_inside(field, value, here, root)


def _walk_inside(field: FieldInfo, value: Any, path: Place, root: type[BaseModel]) -> Iterator[Problem]:
    inner = models_in(field.annotation)
    items = enumerate(value) if isinstance(value, list) else [(None, value)]
    for index, item in items:
        if inner and isinstance(item, dict):
            yield from _walk(inner[0], item, path if index is None else (*path, index), root)


def _unknown(path: Place, value: Any, model: type[BaseModel], root: type[BaseModel]) -> Problem:
    key = str(path[-1])
    shown = without_secret_values(key, value)
    if is_newer(key):
        return Problem(path, shown, "an option of a newer Axolotl than regrow follows, or of a plugin; not yet supported", "remove it")
    return Problem(path, shown, "no such option", suggest(key, model, root))


def without_secret_values(key: str, value: Any) -> Any:
    """What a key that regrow does not know holds, as a message may show it."""
    name = key.lower()
    if name.endswith(_SECRET_ENDS) or any(word in name for word in _SECRET_WORDS):
        return "(not shown)"
    if isinstance(value, dict):
        return {inner: without_secret_values(str(inner), item) for inner, item in value.items()}
    return [without_secret_values("", item) for item in value] if isinstance(value, list) else value


def suggest(key: str, model: type[BaseModel], root: type[BaseModel]) -> str:
    """The nearest options for a name that is none: those valid at its depth first, then those of other depths."""
    name, elsewhere = key.lower().replace("-", "_"), option_places(root)
    if name not in model.model_fields and name in elsewhere:
        return f"`{name}` belongs at `{elsewhere[name]}`"
    here = difflib.get_close_matches(name, model.model_fields, n=2, cutoff=_NEAR)
    here = here or [field for field in model.model_fields if len(name) > 3 and field.startswith(name)][:3]
    if here:
        return "did you mean " + " or ".join(f"`{name}`" for name in here) + "?"
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=_NEAR)
    return f"did you mean `{elsewhere[near[0]]}`?" if near else "`regrow explain` lists the options there are"


@cache  # every unknown key asks for those of the whole recipe
def option_places(model: type[BaseModel], prefix: str = "") -> Mapping[str, str]:
    """Every option name with its dotted place: the shallowest, and there the first, `datasets` before what resembles it."""
    places = {name: prefix + name for name in model.model_fields}
    for name, field in sorted(model.model_fields.items(), key=lambda item: not item[1].is_required()):
        for inner in models_in(field.annotation):
            for inner_name, place in option_places(inner, f"{prefix}{name}.").items():
                places.setdefault(inner_name, place)
    return places


def _pydantic_problems(model: type[BaseModel], values: dict[Any, Any], known: set[Place]) -> list[Problem]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        found = {_locate(detail["loc"], values, detail["type"] == "missing"): detail for detail in error.errors()}
        # Of a union, pydantic reports every member; the one that got furthest is the one that was meant.
        deepest = [path for path in found if not any(other != path and other[: len(path)] == path for other in found)]
        told = [path for path in deepest if path not in known and found[path]["type"] != "extra_forbidden"]
        return [_problem(model, path, values, found[path]) for path in told if not _is_later(model, path, values)]
    return []


def _is_later(model: type[BaseModel], path: Place, values: Any) -> bool:
    """Such values get a message of their own, see :mod:`pipeline.options.reading.statuses`."""
    field = field_at(model, path)
    if field is None:
        return False
    facts, value = facts_of(field), value_at(values, path)
    return facts.is_later(value) or facts.why_gone(value) is not None


def _locate(location: tuple[str | int, ...], values: Any, missing: bool) -> Place:
    """Pydantic's location without the names of union members that it puts between."""
    path: Place = ()
    for part in location:
        inside = value_at(values, (part,))
        if inside is not MISSING:
            path, values = (*path, part), inside
    return (*path, location[-1]) if missing else path


def _problem(model: type[BaseModel], path: Place, values: Any, detail: Any) -> Problem:
    field = field_at(model, path)
    if field is None:
        return Problem(path, values, detail["msg"], "see `regrow explain`")
    if detail["type"] == "missing":
        return Problem(path, MISSING, "required", f"add `{path[-1]}: …`, {takes(field)}: {field.description}")
    return Problem(path, shown_at(model, values, path), f"expected {takes(field)}", _example(path, field))


def shown_at(model: type[BaseModel], values: Any, path: Place) -> Any:
    """What messages may show of the value at ``path``."""
    field = field_at(model, path)
    found = value_at(values, path)
    is_secret = field is not None and (facts_of(field).secret or (isinstance(found, str) and str(path[-1]).endswith("auth_token")))
    return "(not shown)" if is_secret else found


def field_at(model: type[BaseModel], path: Place) -> FieldInfo | None:
    """The field that decides what may stand at ``path``."""
    field: FieldInfo | None = None
    models = [model]
    for part in path:
        inner = next((candidate.model_fields[part] for candidate in models if part in candidate.model_fields), None)
        if inner is not None:
            field, models = inner, models_in(inner.annotation)
    return field


def value_at(values: Any, path: Place) -> Any:
    """The value at ``path``, or :data:`MISSING`."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return values


def _example(path: Place, field: FieldInfo) -> str:
    if field.is_required() or field.default is None or isinstance(field.default, BaseModel | dict | list):
        return f"{field.description}" if field.description else f"see `regrow explain {dotted(path)}`"
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"for example `{path[-1]}: {default}`, the default" if isinstance(path[-1], str) else f"{field.description}"
