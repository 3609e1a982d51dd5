"""Which turns are trained, and which characters of those that are trained in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow

CharSpans = tuple[tuple[int, int], ...]
"""Spans ``[start, end)`` of characters, in order."""


class Part(NamedTuple):
    """A part of a message's content, and whether it is trained (``None``: as its turn is)."""

    text: str
    trained: bool | None

    @classmethod
    def flagged(cls, text: str, part: Mapping[str, Any]) -> Part:
        """By the part's ``train``, or else its ``weight``."""
        for key in ("train", "weight"):
            if part.get(key) is not None:
                return cls(text, _truth(part[key], key))
        return cls(text, None)


class Choice(NamedTuple):
    """Whether a turn is trained; spans where only these of its content and its reasoning are."""

    trained: bool
    content: CharSpans | None = None
    reasoning: CharSpans | None = None

    def __bool__(self) -> bool:
        return self.trained

    def details(self, turn: int) -> dict[int, CharSpans]:
        """Spans by source; none where the turn is trained as a whole."""
        if self.content is None and self.reasoning is None:
            return {}
        return {turn: self.content or (), ~turn: self.reasoning or ()}


class TrainingChoice:
    """What an entry's options say. Axolotl's order: the message's own flag, its details, its role."""

    def __init__(self, entry: DatasetFormat, names: Mapping[str, str], train_on_inputs: bool) -> None:
        roles = entry.roles_to_train if entry.roles_to_train is not None else ["assistant"]
        self._roles, self._all = {names.get(role, role) for role in roles}, train_on_inputs
        self._flag, self._detail = entry.message_field_training, entry.message_field_training_detail

    def by_role(self, role: str) -> bool:
        """Whether turns of this role, the template's name for it, are trained."""
        return self._all or role in self._roles

    def of(
        self, message: Mapping[str, Any], role: str, parts: Sequence[Part], thinking_parts: Sequence[Part], content: str, thinking: str
    ) -> Choice:
        """What is trained of a message.

        Raises:
            BadRow: its flag or its details cannot be read.
        """
        flag = message.get(self._flag) if self._flag else None
        detail = message.get(self._detail) if self._detail else None
        trained = self.by_role(role) if flag is None else _truth(flag, self._flag)
        spans = _parts_spans(parts, trained)
        thinking_spans = _parts_spans(thinking_parts, trained)
        if spans is not None or thinking_spans is not None:
            trained = trained if flag is not None else bool(spans or thinking_spans)
        elif detail is not None:
            spans = _spans(detail, str(self._detail)) if detail else None
            trained = bool(detail) if flag is None else trained
        return Choice(trained, _cut_spaces(spans, content), _cut_spaces(thinking_spans, thinking))


def _truth(value: Any, key: str | None) -> bool:
    if value not in (0, 1):
        raise BadRow(f"{key!r} of a message is neither true nor false")
    return bool(value)


def _parts_spans(parts: Sequence[Part], trained: bool) -> CharSpans | None:
    if all(part.trained is None for part in parts):
        return None
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part.text))
    return _union([(ends[n], ends[n + 1]) for n, part in enumerate(parts) if (trained if part.trained is None else part.trained)])


def _spans(detail: Any, key: str) -> CharSpans:
    if not isinstance(detail, list) or not all(isinstance(span, dict) for span in detail):
        raise BadRow(f"{key!r} of a message is no list of spans")
    return _union([_span(span, key) for span in detail if _truth(span.get("train"), f"{key}.train")])


def _span(span: Mapping[str, Any], key: str) -> tuple[int, int]:
    begin, end = span.get("begin_offset"), span.get("end_offset")
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise BadRow(f"a span of {key!r} needs 0 <= begin_offset <= end_offset; both are characters that it holds")
    return begin, end + 1


def _union(spans: list[tuple[int, int]]) -> CharSpans:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return tuple(merged)


def _cut_spaces(spans: CharSpans | None, text: str) -> CharSpans | None:
    """Spans without a last space whose word is not trained.

    A token with one trained character is trained, and tokenizers put a space in one token with the word after it:
    the space would take that word with it. Axolotl leaves a token out too when one border character is all that is shared.
    """
    if spans is None:
        return None
    cut = [(start, end - 1 if text[end - 1 : end] == " " and text[end : end + 1].strip() else end) for start, end in spans]
    return tuple((start, end) for start, end in cut if start < end)
