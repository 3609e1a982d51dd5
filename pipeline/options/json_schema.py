"""`regrow schema`: the options as JSON Schema (2020-12), for editors that complete and check params.yaml."""

from __future__ import annotations

from typing import Any

from pipeline.digest import canonical_json
from pipeline.options.reading.renames import SIMPLE
from pipeline.options.schema import OptionFacts
from pipeline.options.views import RecipeOptions

HEADER = "# yaml-language-server: $schema=params.schema.json"
"""First line of a params.yaml that stands beside params.schema.json."""


def json_schema() -> dict[str, Any]:
    """What does not work yet is there, marked deprecated, so that editors strike it out and say why."""
    schema: dict[str, Any] = _cleaned(RecipeOptions.model_json_schema())
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
