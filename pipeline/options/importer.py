"""`regrow import FILE`: an Axolotl config that is not verbatim becomes a clean params.yaml, with a list of what changed.

Anchors and merges are written out, environment variables put in, dotted keys and command-line overrides nested, old names
replaced, and keys removed that regrow will never have. What is not supported yet stays, and is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.reading.normal import normal_form
from pipeline.options.reading.problems import raise_all
from pipeline.options.reading.renames import apply_renames
from pipeline.options.reading.source import Place, Source, parse
from pipeline.options.reading.statuses import asks_for_nothing
from pipeline.options.recipe import examine
from pipeline.options.schema import facts_of
from pipeline.options.views import RecipeOptions
from pipeline.options.written import written

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Imported:
    """``text``: the params.yaml. ``changes``: what was changed. ``remaining``: problems that it still has."""

    text: str
    changes: tuple[str, ...]
    remaining: tuple[str, ...]


def import_config(text: str, name: str, environment: Mapping[str, str], overrides: Sequence[str] = ()) -> Imported:
    """Make a params.yaml of an Axolotl config.

    Args:
        text: the config; ``name`` is what messages call it.
        environment: values for ``${NAME}`` and ``${NAME:-default}``.
        overrides: arguments as Axolotl's command line takes them: ``--trl.beta=0.1``, ``--lora-r 8``, ``--no-bf16``.

    Raises:
        RegrowError: not YAML, a variable that is not set, an override that is none, an old name that contradicts its new one.
    """
    source = parse(text, name)
    changes = _lost_forms(text)
    source.value = _substituted(source, source.value, (), environment, changes)
    _override(source, overrides, changes)
    _nest(source, changes)
    source.value = normal_form(RecipeOptions, _without_nulls(source.value, changes))
    renaming = apply_renames(source)
    raise_all(renaming.problems, source)
    changes += [f"{item.path[-1]} is now {item.wrong.partition('`')[2].partition('`')[0]}" for item in renaming.warnings]
    _remove_anchors(source, text, changes)
    _remove_refused(source, changes)
    clean = written(source, text)
    return Imported(clean, tuple(dict.fromkeys(changes)), _remaining(clean))


def _lost_forms(text: str) -> list[str]:
    changes = ["anchors and merges are written out"] if re.search(r"[:\-\[,]\s+\*\w|<<\s*:", text) else []
    return changes + (
        ["comments behind values and inside options are not kept"] if re.search(r"\S[ \t]+#|^[ \t]+#", text, re.MULTILINE) else []
    )


def _remaining(clean: str) -> tuple[str, ...]:
    source = parse(clean, "params.yaml")
    problems, _ = examine(source)
    return tuple(dict.fromkeys(problem.render(source) for problem in sorted(problems, key=lambda item: source.line(item.path))))


def _substituted(source: Source, value: Any, path: Place, environment: Mapping[str, str], changes: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _substituted(source, item, (*path, key), environment, changes) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(source, item, (*path, index), environment, changes) for index, item in enumerate(value)]
    if not isinstance(value, str) or not _VARIABLE.search(value):
        return value
    changes.append(f"{'.'.join(map(str, path))}: variables are put in")
    return _word(_VARIABLE.sub(lambda match: _variable(source, match, path, environment), value))


def _variable(source: Source, match: re.Match[str], path: Place, environment: Mapping[str, str]) -> str:
    found = environment.get(match["name"], match["default"])
    if found is None:
        raise source.fail(
            source.line(path), f"{match[0]} is not set.", f"Set the variable {match['name']}, or write the value into the file."
        )
    return found


def _word(text: str) -> Any:
    """A text as YAML reads it if that is one plain word: 8 is a number. What YAML would read in part or otherwise stays text."""
    value = _alone(text)
    return text if isinstance(value, str | list | dict) or len(text.split()) > 1 else value


def _argument(text: str) -> Any:
    """As :func:`_word`, but lists, mappings and quoted texts are read too, where they are the whole of ``text``."""
    whole = len(text) > 1 and "\n" not in text and (text[0] + text[-1] in ("[]", "{}", "''", '""'))
    return _alone(text) if whole else _word(text)


def _alone(text: str) -> Any:
    try:
        return parse(f"value: {text}", "value").value["value"]
    except RegrowError:
        return text


def _override(source: Source, arguments: Sequence[str], changes: list[str]) -> None:
    words = list(arguments)
    while words:
        flag = words.pop(0)
        key, equals, value = flag.removeprefix("--").partition("=")
        if not equals and flag.startswith("--no-"):
            key, value = key.removeprefix("no-"), "false"
        elif not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if not re.fullmatch(r"[A-Za-z][\w.-]*", key):
            raise RegrowError(f"{flag!r} is not an override.", "Write `--option=value`, nested options with a dot: --trl.beta=0.1.")
        source.value[key.replace("-", "_")] = _argument(value)
        changes.append(f"{key.replace('-', '_')}: taken from the command line")


def _nest(source: Source, changes: list[str]) -> None:
    for key in [key for key in source.value if isinstance(key, str) and "." in key]:
        value, path = source.value.pop(key), key.split(".")
        source.value = _put(source.value, path, value, key)
        source.lines.setdefault((path[0],), source.line((key,)))
        changes.append(f"{key} is nested")


def _put(holder: Any, path: list[str], value: Any, key: str) -> Any:
    """``holder`` with ``value`` at ``path``; numbers count in lists, from 0.

    Raises:
        RegrowError: a list on the way has no such item.
    """
    if not path:
        return value
    if isinstance(holder, list):
        if not path[0].isdecimal() or int(path[0]) >= len(holder):
            last = f"a number from 0 to {len(holder) - 1}" if holder else "no number, the list is empty"
            raise RegrowError(f"{key}: there is no item {path[0]!r}.", f"What works in its place: {last}.")
        index = int(path[0])
        return [*holder[:index], _put(holder[index], path[1:], value, key), *holder[index + 1 :]]
    inside = holder if isinstance(holder, dict) else {}
    return {**inside, path[0]: _put(inside.get(path[0]), path[1:], value, key)}


def _without_nulls(values: dict[Any, Any], changes: list[str]) -> dict[Any, Any]:
    changes += [f"{key}: empty, removed" for key, value in values.items() if value is None]
    return {key: value for key, value in values.items() if value is not None}


def _remove_anchors(source: Source, text: str, changes: list[str]) -> None:
    """Keys that are no options and only hold what other places refer to."""
    lines = text.splitlines()
    for key in [key for key in source.value if key not in RecipeOptions.model_fields and (key,) in source.lines]:
        if re.search(r":\s*&\w", lines[source.lines[(key,)] - 1]):
            del source.value[key]
            changes.append(f"{key}: removed; it only held what an anchor names")


def _remove_refused(source: Source, changes: list[str]) -> None:
    """Keys that regrow will never have, and secrets, which belong into the environment."""
    for key in list(source.value):
        field = RecipeOptions.model_fields.get(key)
        facts = None if field is None else facts_of(field)
        if field is None or facts is None:
            continue
        if facts.secret and not asks_for_nothing(field, source.value[key]):
            changes.append(f"{key}: removed; secrets belong into the environment")
        elif facts.status == "refused" and not facts.not_yet:
            changes.append(f"{key}: removed; {facts.note}" + (f" ({facts.instead})" if facts.instead else ""))
        else:
            continue
        del source.value[key]
