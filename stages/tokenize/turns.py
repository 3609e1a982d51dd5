"""Where each turn of a conversation stands in the rendered text.

One rendering tells it for turns that print their content as it is, which is almost all of them. A turn that says more (reasoning,
tool calls) or whose content the template changes has text that is traced to nothing. It is everything that would not be there
if the turn said one plain word: a second rendering with such words in place of these turns shows it, and a rendering for
each of them where the second one leaves a doubt.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from stages.tokenize.example import BadRow
from stages.tokenize.gaps import Gaps, Region
from stages.tokenize.messages import Conversation, Message
from stages.tokenize.template import ChatTemplate
from stages.tokenize.traced import Span, Traced, turn_of


@dataclass(slots=True)
class Turns:
    """The rendered text and the regions of every located turn; a turn that the template leaves out has none.

    ``slow``: a rendering for a single turn was needed.
    """

    text: Traced
    regions: dict[int, list[Region]] = field(default_factory=dict)
    slow: bool = False

    @property
    def spans(self) -> tuple[Span, ...]:
        """Which characters are those of which string."""
        return self.text.spans


def locate(conversation: Conversation, template: ChatTemplate, needed: Collection[int], terminators: Sequence[str]) -> Turns:
    """Find the turns ``needed``, and those that print some of ``terminators`` where it could be taken for the template's.

    Raises:
        BadRow: the template refuses the conversation, or changes a turn so that its place cannot be told.
    """
    turns = Turns(template.render(conversation.messages, conversation.tools))
    found, unclear = _by_trace(turns.spans, conversation)
    turns.regions = {turn: [region] for turn, region in found.items()}
    wanted = {turn for turn in unclear if turn in needed or _holds(conversation.messages[turn]["content"], terminators)}
    if wanted:
        _Search(turns, conversation, template, frozenset(found)).run(wanted)
    return turns


def _holds(content: str | None, texts: Sequence[str]) -> bool:
    return bool(content) and any(text in str(content) for text in texts)


def _by_trace(spans: Sequence[Span], conversation: Conversation) -> tuple[dict[int, Region], set[int]]:
    """Turns that print their whole content once, and it alone; and the others."""
    found: dict[int, Region] = {}
    unclear = set(conversation.rich)
    messages = conversation.messages
    for start, end, source, offset in spans:
        if source < 0 or source in found:
            unclear.add(turn_of(source))
            continue
        found[source] = start, end
        content = messages[source]["content"]
        if end - start != len(content) and (content[:offset].strip() or content[offset + end - start :].strip()):
            unclear.add(source)
    if len(found) < len(messages):
        unclear.update(turn for turn in range(len(messages)) if turn not in found)
    for turn in unclear:
        found.pop(turn, None)
    return found, unclear


class _Search:
    """Finds turns by rendering the conversation again with words in their place."""

    def __init__(self, turns: Turns, conversation: Conversation, template: ChatTemplate, clear: Collection[int]) -> None:
        self._turns, self._conversation, self._template, self._clear = turns, conversation, template, clear
        self._owners = [(start, turn_of(source)) for start, _, source, _ in turns.spans]
        self._own: dict[int, list[Span]] = {}
        for span in turns.spans:
            self._own.setdefault(turn_of(span[2]), []).append(span)

    def run(self, wanted: set[int]) -> None:
        """Find them: at once as far as it goes, then one by one."""
        copies = {turn: regions for turn in wanted if (regions := _copies(self._own.get(turn, ())))}
        self._turns.regions.update(copies)
        left = wanted - copies.keys()
        left -= self._find(left) if left else set()
        for turn in sorted(left):
            self._turns.slow = True
            if not self._find({turn}) and not self._find_as_last(turn):
                raise BadRow("the chat template changes a turn so that its place in the text cannot be told")

    def _find(self, wanted: set[int]) -> set[int]:
        """Render with words in place of ``wanted``; returns those whose place is now known."""
        word = _unused(self._turns.text)
        words = {turn: f"{word}{turn:06d}{word}" for turn in wanted}
        try:
            plain = self._template.render(self._with(words), self._conversation.tools)
        except BadRow:  # without tool calls it may refuse what answers them
            return set()
        whole = {source: start for start, end, source, _ in plain.spans if source in words and end - start == len(words[source])}
        places = {turn: whole[turn] if turn in whole else str.find(plain, text) for turn, text in words.items()}
        if plain == self._turns.text:  # whatever these turns say, the template does not print it
            self._turns.regions.update({turn: [] for turn in wanted})
            return wanted
        gaps = Gaps(self._turns.text, plain, self._clear, places.values())
        regions = {turn: self._region(gaps, turn, place, place + len(words[turn])) for turn, place in places.items()}
        known = {turn: region for turn, region in regions.items() if region is not None}
        self._turns.regions.update(known)
        return set(known)

    def _with(self, words: Mapping[int, str]) -> list[Message]:
        conversation = self._conversation
        return [conversation.plain(turn, words[turn]) if turn in words else message for turn, message in enumerate(conversation.messages)]

    def _region(self, gaps: Gaps, turn: int, start: int, end: int) -> list[Region] | None:
        found = gaps.region(start, end, self._own.get(turn, [])) if start >= 0 else None
        if found is None or not found.certain or self._holds_others(turn, found.region):
            return None
        return [found.region]

    def _holds_others(self, turn: int, region: Region) -> bool:
        """Whether another turn stands in ``region``, as answers of tools do that are printed inside the turn that calls them."""
        first, last = (bisect_left(self._owners, (border, -1)) for border in region)
        return any(owner != turn for _, owner in self._owners[first:last])

    def _find_as_last(self, turn: int) -> bool:
        """A turn that what follows depends on: look at the conversation up to it."""
        word, tools = _unused(self._turns.text), self._conversation.tools
        try:
            text = self._template.render(self._conversation.messages[: turn + 1], tools)
            plain = self._template.render(self._with({turn: word})[: turn + 1], tools)
        except BadRow:
            return False
        place = str.find(plain, word)
        if place < 0:
            return False
        found = Gaps(text, plain, self._clear, [place]).region(place, place + len(word), self._own.get(turn, []))
        if found is None or not str.startswith(self._turns.text, str.__getitem__(text, slice(found.region[1]))):
            return False
        self._turns.regions[turn] = [found.region]
        return True


def _unused(text: str) -> str:
    """Digits that the text does not hold; no template changes digits."""
    number = 4815162342
    while str(number) in text:
        number += 1
    return str(number)


def _copies(spans: Sequence[Span]) -> list[Region]:
    """The regions of a turn that is printed more than once; empty for others."""
    ends: dict[int, int] = {}
    repeated = False
    for start, end, source, offset in sorted(spans, key=lambda span: (span[2], span[3])):
        repeated |= start < end and offset < ends.get(source, 0)
        ends[source] = max(ends.get(source, 0), offset + end - start)
    return [(start, end) for start, end, _, _ in spans] if repeated else []
