"""`regrow schema`: the options as JSON Schema (2020-12), for editors that complete and check params.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.digest import canonical_json
from pipeline.options.reading.renames import SIMPLE
from pipeline.options.reading.statuses import idle_values
from pipeline.options.reading.wording import models_in
from pipeline.options.schema import OptionFacts, facts_of
from pipeline.options.views import RecipeOptions

HEADER = "# yaml-language-server: $schema=params.schema.json"
"""First line of a params.yaml that stands beside params.schema.json."""


def json_schema() -> dict[str, Any]:
    """What does not work yet is there, marked deprecated, so that editors strike it out and say why."""
    schema: dict[str, Any] = _cleaned(RecipeOptions.model_json_schema())
    for model in _models(RecipeOptions, {}).values():
        _allow(model, schema if model is RecipeOptions else schema["$defs"][model.__name__])
    for old in sorted(SIMPLE.keys() - schema["properties"].keys()):
        if "." not in old:
            schema["properties"][old] = {"description": f"Old name of `{SIMPLE[old]}`.", "deprecated": True}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "regrow: params.yaml"
    schema["description"] = "An Axolotl config, key for key. `regrow check` says more than this schema can."
    return schema


def json_schema_text() -> str:
    """The content of params.schema.json."""
    return canonical_json(json_schema())


def _cleaned(node: Any) -> Any:
    """Without pydantic's generated titles, and with the status of each option in words."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _cleaned(value) for key, value in node.items() if not _is_noise(key, value)}
    facts = node.get("facts")
    return plain | _told(OptionFacts(**facts), str(node.get("description", ""))) if isinstance(facts, dict) else plain


def _models(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """``model`` and all that it holds at any depth, by name."""
    if found.setdefault(model.__name__, model) is not model:
        raise TypeError(f"two option models are called {model.__name__}, and a JSON schema names them by that")
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            _models(inner, found)
    return found


def _allow(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Null wherever a value may be left out, and of refused options nothing but what asks for nothing."""
    for name, field in model.model_fields.items():
        found = schema["properties"][name]
        if not field.is_required():
            _allow_null(found)
        if facts_of(field).status == "refused" and not field.is_required():
            found["enum"] = _idle(field)


def _allow_null(schema: dict[str, Any]) -> None:
    """Change ``schema`` so that it takes null too. Limits of numbers, texts and lists say nothing about null."""
    if "anyOf" in schema:
        schema["anyOf"] += [] if {"type": "null"} in schema["anyOf"] else [{"type": "null"}]
    elif "$ref" in schema:
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "null"}]
    elif isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]


def _idle(field: FieldInfo) -> list[Any]:
    """Null, the default, and other values that ask for nothing; true is not 1 here."""
    default = field.get_default()
    plain = default.model_dump() if isinstance(default, BaseModel) else default
    values = {repr(value): value for value in (None, plain, *idle_values(field))}
    return list(values.values())


def _is_noise(key: str, value: Any) -> bool:
    return (
        (key == "title" and isinstance(value, str)) or (key == "default" and value is None) or (key == "facts" and isinstance(value, dict))
    )


def _told(facts: OptionFacts, description: str) -> dict[str, Any]:
    if facts.status == "works":
        return {"description": f"{description} Not yet supported: {', '.join(facts.later)}."} if facts.later else {}
    if facts.status == "needs":
        return {"description": f"{description} Needs {facts.note}."}
    if facts.not_yet:
        return {"description": f"Not yet supported. {description}", "deprecated": True}
    if facts.status == "renamed":
        return {"description": f"{description} Write `{facts.note}`.", "deprecated": True}
    return {"description": f"Refused: {facts.note}. {description}", "deprecated": True}
