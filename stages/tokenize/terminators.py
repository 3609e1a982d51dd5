"""Tokens that end a turn: which they are, where they stand after a turn, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokenizers import Tokenizer

from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.formats import Surroundings
from stages.tokenize.gaps import Region
from stages.tokenize.turns import Turns

Policy = Literal["turn", "all", "last", "none"]


class Group(NamedTuple):
    """Tokens of which the first one after a turn ends it, and after which turns it is trained."""

    texts: tuple[str, ...]
    policy: Policy


class Terminators:
    """The end-of-sequence token and the tokens of ``eot_tokens``, each with its policy."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = tuple(group for group in groups if group.texts and group.policy != "none")
        self.texts = tuple(text for group in groups for text in group.texts)
        self.after_all = any(group.policy == "all" for group in groups)
        """After turns that are not trained too."""

    def trained(self, turns: Turns, trained: Sequence[bool]) -> list[Region]:
        """Where the trained ones stand: after a turn, before the next text that comes from the conversation."""
        text = str.__str__(turns.text)
        said = [(span[0], span[1]) for span in turns.spans] + [region for regions in turns.regions.values() for region in regions]
        borders = sorted({start for start, end in said if start < end})
        ends = sorted((max(end for _, end in regions), turn) for turn, regions in turns.regions.items() if regions)
        return [region for group in self._groups for region in _of_group(group, text, ends, borders, trained)]


def _of_group(group: Group, text: str, ends: Sequence[tuple[int, int]], borders: Sequence[int], trained: Sequence[bool]) -> list[Region]:
    places = zip(ends, _limits(ends, borders, len(text)), strict=True)
    after = [(end, limit) for (end, turn), limit in places if group.policy == "all" or trained[turn]]
    found = [region for end, limit in after if (region := _first(group.texts, text, end, limit)) is not None]
    return found[-1:] if group.policy == "last" else found


def _limits(ends: Sequence[tuple[int, int]], borders: Sequence[int], length: int) -> list[int]:
    """For each end, in order, the first border from there on."""
    limits, place = [], 0
    for end, _ in ends:
        while place < len(borders) and borders[place] < end:
            place += 1
        limits.append(borders[place] if place < len(borders) else length)
    return limits


def _first(texts: Sequence[str], text: str, start: int, limit: int) -> Region | None:
    places = [(place, place + len(token)) for token in texts if (place := text.find(token, start, limit)) >= 0]
    return min(places, default=None)


def terminators_of(entry: DatasetFormat, around: Surroundings, template: str) -> tuple[Terminators, list[str]]:
    """The terminators of a dataset entry under ``template``, and what to tell the user about them.

    Raises:
        RegrowError: an entry of ``eot_tokens`` is not one token, or the end-of-sequence token has two policies.
    """
    eos, listed = around.eos, around.options.eot_tokens
    listed = [eos] if listed is None else listed
    eot_policy = entry.train_on_eot or entry.train_on_eos or "turn"
    eos_policy = entry.train_on_eos or (eot_policy if eos in listed else "turn")
    printed = [token for token in listed if _prints(template, token, around)]
    _require_single_tokens(printed, around)
    if eos in listed and eos_policy != eot_policy:
        raise RegrowError(
            f"train_on_eos is {eos_policy} and train_on_eot is {eot_policy}, but the end-of-sequence token {eos!r} ends turns for both.",
            "Set both to the same value, or list only other tokens in eot_tokens.",
        )
    others = tuple(dict.fromkeys(token for token in listed if token != eos))
    warnings = [f"eot_tokens: the chat template does not print {token!r}." for token in others if token not in printed]
    if not printed and not _prints(template, eos, around):
        warnings.append(
            f"The chat template does not print {eos!r}, the tokenizer's end-of-sequence token: no end of a turn is trained, and the model "
            "will not learn to stop. Name the template's own token in eot_tokens, or set special_tokens: {eos_token: ...} to it."
        )
    return Terminators([Group((eos,), eos_policy), Group(others, eot_policy)]), warnings


def _prints(template: str, token: str, around: Surroundings) -> bool:
    names = [name for name, text in around.special_tokens.items() if text == token]
    return token in template or any(name in template for name in names)


def _require_single_tokens(tokens: Sequence[str], around: Surroundings) -> None:
    others = [token for token in tokens if token not in around.special_tokens.values()]
    if not others:
        return
    tokenizer = Tokenizer.from_file(str(around.tokenizer / "tokenizer.json"))
    for token in others:
        pieces = tokenizer.encode(token, add_special_tokens=False).tokens
        if len(pieces) != 1:
            raise RegrowError(
                f"eot_tokens: {token!r} is {len(pieces)} tokens for this tokenizer ({' '.join(pieces)}).",
                "Add it under `tokens`, or write it over an unused token with `added_tokens_overrides`, or remove it from eot_tokens.",
            )
