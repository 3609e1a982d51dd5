"""A YAML 1.2 file as plain Python values, with the line of every key.

ruamel.yaml composes the node tree; the values are built here, because its own constructor keeps lines for mappings only
where it makes them, and turns dates into objects that no option has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import RegrowError

Place = tuple[str | int, ...]
"""Where a value stands: keys and list indexes from the top of the file."""

_TAG = "tag:yaml.org,2002:"

MOST_VALUES = 100_000
"""Values of a file, those that anchors repeat counted each time: ten anchors of ten references each stand for 10**10."""

_LONGEST_NUMBER = 1024
"""Bits. No option takes such a number, and Python refuses to write much longer ones out."""


@dataclass
class Source:
    """A file that was read: ``value`` in plain types, ``lines`` the line (1-based) of every key and list item.

    ``old_names`` is filled when old names are replaced: where a value stands now, and where the file has it.
    """

    name: str
    value: dict[Any, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    old_names: dict[Place, Place] = field(default_factory=dict)
    values: int = 0

    def count(self, line: int) -> None:
        """One more value.

        Raises:
            RegrowError: there are too many.
        """
        self.values += 1
        if self.values > MOST_VALUES:
            raise self.fail(line, f"more than {MOST_VALUES} values, counted as often as anchors repeat them.", "Write a shorter file.")

    def line(self, path: Place) -> int:
        """The line of ``path``, or of the nearest thing around it that the file holds."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def fail(self, line: int, problem: str, remedy: str) -> RegrowError:
        """An error about the file itself."""
        return RegrowError(f"{self.name}:{line}: {problem}", remedy)


def parse(text: str, name: str) -> Source:
    """Read ``text`` as one YAML 1.2 mapping.

    Raises:
        RegrowError: not YAML, not a mapping, a key given twice, a tag or a reference that has no plain value.
    """
    root = _compose(text, name)
    source = Source(name, {})
    if root is None:
        return source
    value = _build(root, (), source, ())
    if not isinstance(value, dict):
        raise source.fail(
            1, f"the file holds {_kind(value)}, not options.", "Write one `option: value` per line, for example `learning_rate: 2e-4`."
        )
    source.value = value
    return source


def _compose(text: str, name: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise RegrowError(f"{where}: not valid YAML: {what}.", _yaml_remedy(what)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RegrowError(f"{name}: not valid YAML: {error}.", "Remove the character or the nesting that it names.") from None


def _yaml_remedy(what: str) -> str:
    if "alias" in what:
        return "Define the anchor with `&name` before `*name` uses it."
    if "document" in what:
        return "Keep one document: remove the `---` line and what follows it."
    return "Check indentation (spaces only), the colon after each key, and quotes on this line and the one before."


def _build(node: Any, path: Place, source: Source, parents: tuple[int, ...]) -> Any:
    line = node.start_mark.line + 1
    source.count(line)
    source.lines.setdefault(path, line)
    if id(node) in parents:
        raise source.fail(line, "an anchor that contains itself.", "Write the value out.")
    inside = (*parents, id(node))
    if isinstance(node.value, str):
        return _scalar(node, source)
    if node.tag == _TAG + "seq":
        return [_build(item, (*path, index), source, inside) for index, item in enumerate(node.value)]
    if node.tag == _TAG + "map":
        return _mapping(node, path, source, inside)
    raise source.fail(line, f"the YAML tag {node.tag!r} has no meaning here.", "Remove the tag.")


def _mapping(node: Any, path: Place, source: Source, inside: tuple[int, ...]) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key_node, value_node in _pairs(node, source, inside):
        key = _scalar(key_node, source) if isinstance(key_node.value, str) else None
        line = key_node.start_mark.line + 1
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise source.fail(line, f"{key_node.value!r} cannot be a key.", "A key is a name.")
        if key in values:
            first = source.lines[(*path, key)]
            raise source.fail(line, f"{_dotted((*path, key))} is given twice, first in line {first}.", "Keep one of the two.")
        source.lines[(*path, key)] = line
        values[key] = _build(value_node, (*path, key), source, inside)
    return values


def _pairs(node: Any, source: Source, inside: tuple[int, ...]) -> Iterator[tuple[Any, Any]]:
    """Own keys in order, then those of ``<<`` merges that the mapping does not set itself."""
    source.count(node.start_mark.line + 1)
    own = [(key, value) for key, value in node.value if key.tag != _TAG + "merge"]
    yield from own
    known = {key.value for key, _ in own if isinstance(key.value, str)}
    for key, value in node.value:
        if key.tag != _TAG + "merge":
            continue
        for merged in value.value if value.tag == _TAG + "seq" else [value]:
            if merged.tag != _TAG + "map" or id(merged) in inside:
                raise source.fail(
                    key.start_mark.line + 1, "`<<` merges something that is not another mapping.", "Point it at an anchored mapping."
                )
            fresh = [(name, item) for name, item in _pairs(merged, source, (*inside, id(merged))) if name.value not in known]
            known |= {name.value for name, _ in fresh if isinstance(name.value, str)}
            yield from fresh


def _scalar(node: Any, source: Source) -> Any:
    tag, text = node.tag.removeprefix(_TAG), node.value
    if tag in ("str", "timestamp", "merge", "value"):
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise source.fail(node.start_mark.line + 1, "half of a surrogate pair, which is no character.", "Write the character itself.")
        return text
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag not in ("int", "float"):
        raise source.fail(node.start_mark.line + 1, f"the YAML tag {node.tag!r} has no meaning here.", "Remove the tag.")
    try:
        number = _integer(text) if tag == "int" else _decimal(text)
    except ValueError:
        return text
    return text if isinstance(number, int) and number.bit_length() > _LONGEST_NUMBER else number


def _integer(text: str) -> int:
    plain = text.replace("_", "").lower()
    prefix = plain.lstrip("+-")[:2]
    return int(plain, {"0x": 16, "0o": 8, "0b": 2}.get(prefix, 10))


def _decimal(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _dotted(path: Place) -> str:
    return ".".join(str(part) for part in path)


def _kind(value: Any) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a single value"
