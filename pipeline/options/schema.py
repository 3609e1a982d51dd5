"""What option groups, stage views and recipes are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Group(BaseModel):
    """Options that the same stages read. A group is a mix-in: a stage's view inherits the groups it reads."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class View(Group):
    """The options of one stage. An option that no inherited group declares is an attribute error, not a stale cache."""

    def canonical(self) -> dict[str, Any]:
        """What identifies the stage: defaults filled in, unset options and execution options left out."""
        return _canonical(self)


def option(default: Any, description: str, *, execution: bool = False, **constraints: Any) -> Any:
    """A field: default, one line of description, pydantic constraints (``ge``, ``le``, ``min_length`` …).

    ``execution`` marks what decides how fast or where a stage runs and never what it writes: it is no part of identity.
    """
    return Field(default, description=description, json_schema_extra={"execution": execution}, **constraints)


def _canonical(group: BaseModel) -> dict[str, Any]:
    fields = type(group).model_fields
    return {
        name: plain for name in sorted(fields) if not _is_execution(fields[name]) and (plain := _plain(getattr(group, name))) is not None
    }


def _is_execution(field: Any) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("execution"))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _canonical(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
