"""Rules about keys of one entry that do not belong together, and lists that hold something twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import Formatter

from pipeline.options.dataset_types import MAPPINGS, READERS, SAY_WHAT_IS_TRAINED, Kind, full_name, is_own, kind_of
from pipeline.options.datasets import DatasetEntry
from pipeline.options.row_format import PARTS, RowFormat
from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions


def keys_fit_the_type(options: RecipeOptions) -> Iterator[Broken]:
    """A key of a dataset entry that its type does not read would have no effect on its rows."""
    for place, entry, kind in _entries(options, "datasets", "test_datasets", "dedupe.against"):
        if isinstance(entry.type, str) and is_own(entry.type):
            continue  # such a type gets the whole entry
        name = full_name(entry.type, kind) if isinstance(entry.type, str) else None
        for key, readers in READERS.items():
            if key in entry.model_fields_set and getattr(entry, key) not in (None, False) and name not in readers:
                wrong = f"only {', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} it, and this entry's type is {_told(entry)}"
                yield broken(f"{place}.{key}", wrong, "remove it")


def prompts_are_not_trained(options: RecipeOptions) -> Iterator[Broken]:
    """Keys that say which turns are trained have no effect where the model writes what is trained."""
    for place, entry, kind in _entries(options, "datasets", "test_datasets", "dedupe.against"):
        for key in SAY_WHAT_IS_TRAINED if kind == "prompts" else ():
            if getattr(entry, key) not in (None, []):
                yield broken(f"{place}.{key}", f"nothing of a prompt is trained with rl: {options.rl}", "remove it")


def mapped_keys_fit_what_is_trained(options: RecipeOptions) -> Iterator[Broken]:
    """Instructions, pairs of answers and judged answers each have their own columns and texts."""
    for place, entry, kind in _entries(options, "datasets", "test_datasets", "dedupe.against"):
        read = MAPPINGS.get(kind)
        if isinstance(entry.type, RowFormat) and read is not None:
            for key in RowFormat.model_fields:
                if getattr(entry.type, key) is not None and key not in read:
                    yield broken(f"{place}.type.{key}", "it has no meaning for what is trained here", f"keys that have: {', '.join(read)}")


def texts_name_their_parts(options: RecipeOptions) -> Iterator[Broken]:
    """Braces in a text of a mapping hold the name of a part; other braces are doubled."""
    for place, entry, _ in _entries(options, "datasets", "test_datasets", "dedupe.against"):
        for key, parts in PARTS.items() if isinstance(entry.type, RowFormat) else ():
            text = getattr(entry.type, key)
            found = None if text is None else _foreign_part(text, parts)
            if found is not None:
                works = f"name {' or '.join(f'{{{part}}}' for part in parts)}, and double a brace that is part of the text"
                yield broken(f"{place}.type.{key}", found, works)


def _foreign_part(text: str, parts: Sequence[str]) -> str | None:
    try:
        fields = [(name, conversion, spec) for _, name, spec, conversion in Formatter().parse(text) if name is not None]
    except ValueError as error:
        return f"its braces are not in pairs ({error})"
    foreign = [name for name, conversion, spec in fields if name not in parts or conversion or spec]
    return f"{{{foreign[0]}}} is no part of it" if foreign else None


def _entries(options: RecipeOptions, *names: str) -> Iterator[tuple[str, DatasetEntry, Kind]]:
    """Place and entry of these lists, and what its rows are for."""
    kind = kind_of(options.rl, options.reward_model, options.process_reward_model)
    for name in names:
        for index, entry in enumerate(listed(options, name)):
            if kind is not None:
                yield f"{name}.{index}", entry, kind


def _told(entry: DatasetEntry) -> str:
    return entry.type if isinstance(entry.type, str) else "not set" if entry.type is None else "a mapping"


def choices_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """An answer given twice would be counted twice."""
    yield from _twice("eval.choices", options.eval.choices or [])


def _twice(key: str, values: Sequence[str]) -> Iterator[Broken]:
    for value in dict.fromkeys(value for index, value in enumerate(values) if value in values[:index]):
        yield broken(key, f"{value} is given {values.count(value)} times", "keep one of them")


ENTRIES = (
    keys_fit_the_type,
    prompts_are_not_trained,
    mapped_keys_fit_what_is_trained,
    texts_name_their_parts,
    choices_are_distinct,
)
