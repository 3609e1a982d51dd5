"""What option groups, stage views and recipes are made of, and what is known of each option besides its type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

LARGEST = 2**31 - 1
"""Of any number of steps, rows, tokens or megabytes."""

Status = Literal["works", "needs", "renamed", "refused"]


@dataclass(frozen=True)
class OptionFacts:
    """What is known of an option besides type, default and description.

    Attributes:
        status: works; needs hardware or an extra; renamed (copied to another key); refused.
        not_yet: refused only because the capability is not built yet.
        prepared: of these, the data stages read it already and make the rows for it; what is missing is training.
        note: needs: what it needs. renamed: the new key. refused: why.
        instead: refused: what to write. Empty means: remove it.
        idle: values besides the default that ask for nothing, and are therefore accepted while the option is refused;
            ``None``: `false`, where the option takes it and has no default.
        extras: packages that some values need: pattern of the value, package, extra of regrow that brings it.
        later: for an option that works, values that other tools know and regrow does not support yet (``*`` allowed).
        gone: values that regrow will not have: value, why, what to write.
        execution: decides how fast or where a stage runs and never what it writes; no part of identity.
        secret: the value is never shown.
        newer: not in the config reference that regrow follows, but in newer versions of Axolotl.
    """

    status: Status = "works"
    not_yet: bool = False
    prepared: bool = False
    note: str = ""
    instead: str = ""
    idle: tuple[Any, ...] | None = ()
    extras: tuple[tuple[str, str, str], ...] = ()
    later: tuple[str, ...] = ()
    gone: tuple[tuple[str, str, str], ...] = ()
    execution: bool = False
    secret: bool = False
    newer: bool = False

    def is_later(self, value: Any) -> bool:
        """Whether ``value`` is one that other tools know and regrow does not support yet."""
        return isinstance(value, str) and any(fnmatch(value, pattern) for pattern in self.later)

    def why_gone(self, value: Any) -> tuple[str, str] | None:
        """Why regrow will not have ``value``, and what to write."""
        return next(((why, instead) for gone, why, instead in self.gone if value == gone), None)

    @property
    def is_read(self) -> bool:
        """Whether a stage may read the option."""
        return self.works or self.prepared

    @property
    def works(self) -> bool:
        """Whether a file may ask for it."""
        return self.status in ("works", "needs")


def facts_of(field: FieldInfo) -> OptionFacts:
    """The facts that ``option``, ``not_yet``, ``renamed`` or ``refused`` attached to a field."""
    extra = field.json_schema_extra
    found = extra.get("facts") if isinstance(extra, dict) else None
    return found if isinstance(found, OptionFacts) else OptionFacts()


def option(
    default: Any,
    description: str,
    *,
    execution: bool = False,
    needs: str = "",
    extras: Sequence[tuple[str, str, str]] = (),
    later: Sequence[str] = (),
    gone: Sequence[tuple[str, str, str]] = (),
    secret: bool = False,
    newer: bool = False,
    **constraints: Any,
) -> Any:
    """An option that works: default, one line of description, pydantic constraints (``ge``, ``le``, ``min_length`` …).

    ``execution`` marks what decides how fast or where a stage runs and never what it writes: it is no part of identity.
    ``needs`` names hardware without which it cannot run, ``extras`` packages that some values need, ``later`` values that do not
    work yet, ``gone`` values that never will, each with why and what to write. A ``secret`` is never shown nor written anywhere.
    """
    told = {"note": needs, "extras": tuple(extras), "later": tuple(later), "gone": tuple(gone)}
    facts = OptionFacts("needs" if needs else "works", execution=execution, secret=secret, newer=newer, **told)  # type: ignore[arg-type]
    return _field(default, description, facts, constraints)


def not_yet(
    description: str,
    default: Any = None,
    *,
    idle: Sequence[Any] | None = None,
    needs: str = "",
    prepared: bool = False,
    execution: bool = False,
    secret: bool = False,
    newer: bool = False,
    **constraints: Any,
) -> Any:
    """An option whose capability is not built yet: typed and checked, and refused when it asks for anything.

    Building it means to turn this into :func:`option`. ``idle`` are values that ask for nothing besides the default;
    ``needs`` is what it will need then. ``prepared``: the data stages read it already.
    """
    asks_nothing = None if idle is None else tuple(idle)
    facts = OptionFacts("refused", True, prepared, needs, idle=asks_nothing, execution=execution, secret=secret, newer=newer)
    return _field(default, description, facts, constraints)


def renamed(to: str, description: str = "", default: Any = None) -> Any:
    """An old name: its value is copied to ``to`` (see :mod:`pipeline.options.reading.renames`) with a warning."""
    return _field(default, description or f"Old name of `{to}`.", OptionFacts("renamed", note=to), {})


def refused(description: str, why: str, instead: str = "", default: Any = None, *, idle: Sequence[Any] | None = None) -> Any:
    """An option that regrow will not have: why not, and what to write instead (nothing: remove it)."""
    return _field(default, description, OptionFacts("refused", note=why, instead=instead, idle=None if idle is None else tuple(idle)), {})


def _field(default: Any, description: str, facts: OptionFacts, constraints: dict[str, Any]) -> Any:
    return Field(default, description=description, json_schema_extra={"facts": facts}, **constraints)  # type: ignore[dict-item]


class Nested(BaseModel):
    """Options that stand together under one key."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, defer_build=True)


class Group(BaseModel):
    """Options that the same stages read. A group is a mix-in: a stage's view inherits the groups it reads."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), allow_inf_nan=False, defer_build=True)


class View(Group):
    """The options of one stage.

    An option that no inherited group declares is an attribute error, not a stale cache; so is one that is declared and
    does not work yet, because its value is no part of the stage's identity.
    """

    unread: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        cls.unread = frozenset(name for name, field in cls.model_fields.items() if not facts_of(field).is_read)

    def __getattribute__(self, name: str) -> Any:
        if name[0] != "_" and name in type(self).unread:
            raise AttributeError(f"{type(self).__name__}.{name}: no stage can read it, its status in pipeline/options is not `works`")
        return super().__getattribute__(name)

    def canonical(self) -> dict[str, Any]:
        """What identifies the stage: defaults filled in; unset, unsupported and execution options left out."""
        return _canonical(self)


def _canonical(group: BaseModel) -> dict[str, Any]:
    fields = type(group).model_fields
    return {
        name: plain for name in sorted(fields) if _identifies(fields[name]) and (plain := identifying(getattr(group, name))) is not None
    }


def _identifies(field: FieldInfo) -> bool:
    facts = facts_of(field)
    return facts.is_read and not facts.execution


def identifying(value: Any) -> Any:
    """What of an option's value identifies a stage: of groups, the options that do."""
    if isinstance(value, BaseModel):
        return _canonical(value)
    if isinstance(value, list | tuple):
        return [identifying(item) for item in value]
    if isinstance(value, dict):
        return {str(key): identifying(item) for key, item in value.items()}  # as it is read back from JSON
    return value
