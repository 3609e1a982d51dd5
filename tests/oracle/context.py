"""What a recognition may look at besides the rows: the config, the data, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from tests.oracle.case import Number, Sequence

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """Of one case.

    Attributes:
        config: as Axolotl got it.
        rows: rows of the data by their number.
        decode: ids to text, special tokens included.
        special: ids of special tokens, of which ``bos`` and ``eos`` are two.
    """

    config: Raw = field(default_factory=dict)
    rows: Mapping[Number, Raw] = field(default_factory=dict)
    decode: Callable[[Items[int]], str] = lambda ids: ""
    special: frozenset[int] = frozenset()
    bos: int | None = None
    eos: int | None = None

    def raw(self, number: Number | None) -> Raw:
        """The row of the data that a row of ours was made of."""
        return self.rows.get(number, {}) if number is not None else {}

    @property
    def is_rl(self) -> bool:
        """Whether preferences are trained."""
        return bool(self.config.get("rl"))

    def is_of_its_text(self, made: Sequence, raw: Raw) -> bool:
        """Whether all of it is trained, and is a part of a text of the row of the data; an end may stand behind it."""
        ids = made.ids[:-1] if made.ids[-1:] == (self.eos,) else made.ids
        text = self.decode(ids).strip("\ufffd")  # what is left of a character across two rows
        return made.labels == made.ids and any(text in value for value in raw.values() if isinstance(value, str))

    def entries(self) -> list[Raw]:
        """All dataset entries."""
        return entries_of(self.config)

    def type_is(self, *names: str) -> bool:
        """Whether every dataset has one of these types, whatever its style."""
        types = [str(entry.get("type")).partition(":")[0] for entry in self.entries()]
        return bool(types) and all(name in names for name in types)


def entries_of(config: Raw) -> list[Any]:
    """All dataset entries of a config, as they stand in it."""
    lists = (config.get(name) for name in ("datasets", "test_datasets", "pretraining_dataset"))
    return [entry for entries in lists if isinstance(entries, list) for entry in entries]


def messages_of(row: Raw) -> Iterator[dict[str, Any]]:
    """Everything in a row that may be a message of a conversation, also where it is given as JSON text."""
    for value in row.values():
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        items = value if isinstance(value, list) else [value]
        yield from (item for item in items if isinstance(item, dict))


def contents_of(row: Raw, config: Raw) -> list[Any]:
    """What the messages of a row say, whatever the key is called: text, null, or a list of parts."""
    named = [(entry.get("message_property_mappings") or {}).get("content") for entry in entries_of(config)]
    named += [entry.get("message_field_content") for entry in entries_of(config)]
    keys = sorted({"content", "value", "text", *filter(None, named)})
    return [message[key] for message in messages_of(row) for key in keys if key in message]


def text_of(row: Raw) -> str:
    """All of a row as text."""
    return json.dumps(row, ensure_ascii=False)
