"""`regrow explain OPTION`: what it does, what it takes, who reads it, what reruns, which rules name it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import CodeType

from pydantic import BaseModel

from pipeline.errors import RegrowError
from pipeline.options.catalogue import Option, catalogue, find, status_words, title
from pipeline.options.reading.newer import is_newer
from pipeline.options.reading.problems import show
from pipeline.options.reading.renames import SIMPLE
from pipeline.options.reading.wording import models_in
from pipeline.options.rules import ADVICE, RULES, Rule
from pipeline.options.rules.advice import DEPENDENT, dependent_keys_have_effect
from pipeline.options.views import VIEWS


def explain(name: str) -> str:
    """All about the options called ``name`` (a key, or a dotted place).

    Raises:
        RegrowError: there is none; names the nearest.
    """
    if name in SIMPLE and not find(name):
        return f"{name}\n  An old name of `{SIMPLE[name]}`.\n\n" + explain(SIMPLE[name])
    options = find(name) or find(name.replace("[]", "").replace("-", "_"))
    if not options:
        raise _unknown(name)
    return "\n\n".join(_explain(option) for option in options)


def list_options() -> str:
    """The names of all top-level options, capability by capability."""
    sections: dict[str, list[str]] = {}
    for option in catalogue().values():
        if "." not in option.place:
            sections.setdefault(title(option.section), []).append(option.place + ("" if option.facts.works else " *"))
    lines = [f"{heading}\n  {', '.join(names)}" for heading, names in sections.items()]
    return "\n\n".join([*lines, "* does not work yet, or has another name; `regrow explain OPTION` says more"])


def _explain(option: Option) -> str:
    field, facts = option.field, option.facts
    rows = [
        ("takes", option.type),
        ("default", _default(option)),
        ("status", status_words(option) + (f"; {facts.instead}" if facts.instead else "")),
        ("not yet", ", ".join(facts.later)),
        ("read by", ", ".join(option.readers)),
        ("reruns", _reruns(option)),
    ]
    rules = [f"    {rule.__name__.replace('_', ' ')}: {(rule.__doc__ or '').strip()}" for rule in related_rules(option.name)]
    lines = [option.place, f"  {field.description}", *(f"  {label:<9} {text}" for label, text in rows if text)]
    inside = [f"    {place}: {found.field.description}" for place, found in _inside(option).items()]
    return "\n".join([*lines, *(["  options", *inside] if inside else []), *(["  rules", *rules] if rules else [])])


def _default(option: Option) -> str:
    if option.field.is_required():
        return "none: it must be given"
    default = option.field.get_default(call_default_factory=True)
    return "that of each of its options" if isinstance(default, BaseModel) else show(default)


def _inside(option: Option) -> dict[str, Option]:
    """The options of a group, by place. Entries of `test_datasets` and `dedupe.against` are told under `datasets`."""
    if not models_in(option.field.annotation):
        return {}
    start = "datasets." if option.place in ("test_datasets", "dedupe.against") else f"{option.place}."
    return {place: found for place, found in catalogue().items() if place.startswith(start) and "." not in place.removeprefix(start)}


def _reruns(option: Option) -> str:
    if not option.reruns:
        return "nothing" + (" (it says how a stage runs, not what it writes)" if option.facts.execution else "")
    order = list(VIEWS)
    after = [stage for stage in order[order.index(option.reruns[0]) + 1 :] if stage not in option.reruns]
    return ", ".join(option.reruns) + (f"; then, where their inputs have changed: {', '.join(after)}" if after else "")


def related_rules(key: str) -> list[Rule]:
    """Rules that name an option: read it, or point at it."""
    found = [rule for rule in (*RULES, *ADVICE) if key in set(_names(rule.__code__))]
    return found + [dependent_keys_have_effect] * any(key in keys for keys, _, _ in DEPENDENT)


def _names(code: CodeType) -> Iterator[str]:
    """Attributes that a function reads, and words of the texts it holds, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        for text in constant if isinstance(constant, tuple) else [constant]:
            if isinstance(text, str):
                yield from text.replace(".", " ").split()


def _unknown(name: str) -> RegrowError:
    if is_newer(name):
        return RegrowError(f"{name} belongs to a newer Axolotl than regrow follows, or to a plugin.", "It is not supported yet.")
    near = difflib.get_close_matches(name, [*catalogue(), *SIMPLE], n=3, cutoff=0.6)
    return RegrowError(
        f"There is no option {name!r}.", f"Did you mean {', '.join(near)}?" if near else "`regrow explain` lists all of them."
    )
