"""docs/options.md, written from the schema."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.catalogue import Option, catalogue, count_by_status, status_words, title
from pipeline.options.reading.problems import show

_INTRODUCTION = """\
# Options

`params.yaml` takes every option of Axolotl's config reference, key for key, and a few of its own, nested under the name of
a stage. This page is written from the schema (`python -m pipeline schema --docs > docs/options.md`); `regrow explain OPTION` tells the
same of one option, and `regrow check` checks a file.

An option **works**, **needs** hardware or a package, was **renamed** (the old name is copied, with a warning), or is **refused**,
with a line that says what to write instead. **Not yet supported** is a refusal that a later version lifts: its type is checked,
and a value that asks for nothing, such as the default, is accepted. A key with `null` counts as not given.

*Reruns* names the stages whose identity holds the value: they run again when it changes, and what follows them when their output did.
An option marked *how* says how a stage runs and not what it writes: changing it reruns nothing.
"""


def reference() -> str:
    """The whole page, Markdown."""
    return (
        "\n".join([_INTRODUCTION, _counts(), *(line for section, options in _sections() for line in _table(section, options))]).rstrip()
        + "\n"
    )


def _counts() -> str:
    counts = count_by_status()
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{sum(counts.values())} options: {words}.\n"


def _sections() -> Iterator[tuple[str, list[Option]]]:
    found: dict[str, list[Option]] = {}
    for option in catalogue().values():
        found.setdefault(option.section, []).append(option)
    yield from found.items()


def _table(section: str, options: list[Option]) -> Iterator[str]:
    yield f"## {title(section)}\n"
    yield "| option | takes | default | status | reruns | |"
    yield "|---|---|---|---|---|---|"
    for option in options:
        yield f"| {' | '.join(_escape(cell) for cell in _cells(option))} |"
    yield ""


def _cells(option: Option) -> list[str]:
    required = option.field.is_required() and option.facts.works
    default = "required" if required else "" if option.field.default in (None, ...) else f"`{show(_default(option))}`"
    reruns = "*how*" if option.facts.execution else ", ".join(option.reruns)
    newer = " (newer than the reference)" if option.facts.newer else ""
    return [f"`{option.place}`", option.type, default, _status(option), reruns, f"{option.field.description}{newer}"]


def _default(option: Option) -> object:
    default = option.field.get_default(call_default_factory=True)
    return default.model_dump() if hasattr(default, "model_dump") else default


def _status(option: Option) -> str:
    later = f"; not yet: {', '.join(option.facts.later)}" if option.facts.later else ""
    return f"**{status_words(option)}**{later}" if option.facts.works else status_words(option)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("*`", "\\*`") if "`" in cell else cell.replace("|", "\\|")
