"""Rules about keys of one entry that do not belong together, and lists that hold something twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_TYPES = ("chat_template", "completion", "alpaca")
"""Types that read only some keys. Types of your own get the whole entry and may read all of them."""


def keys_fit_the_type(options: RecipeOptions) -> Iterator[Broken]:
    """A key of a dataset entry that its type does not read would have no effect on its rows."""
    for name in ("datasets", "test_datasets"):
        for index, entry in enumerate(getattr(options, name) or []):
            for key in ("field", "field_messages", "message_property_mappings", "roles", "roles_to_train", "train_on_eos"):
                reader = "completion" if key == "field" else "chat_template"
                if entry.type in _TYPES and entry.type != reader and key in entry.model_fields_set and getattr(entry, key) is not None:
                    yield broken(f"{name}.{index}.{key}", f"only {reader} reads it, and this entry's type is {entry.type}", "remove it")


def choices_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """An answer given twice would be counted twice."""
    yield from _twice("eval.choices", options.eval.choices or [])


def formats_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """Each of them is written once."""
    yield from _twice("quantize.formats", options.quantize.formats)


def _twice(key: str, values: Sequence[str]) -> Iterator[Broken]:
    for value in dict.fromkeys(value for index, value in enumerate(values) if value in values[:index]):
        yield broken(key, f"{value} is given {values.count(value)} times", "keep one of them")


ENTRIES = (keys_fit_the_type, choices_are_distinct, formats_are_distinct)
