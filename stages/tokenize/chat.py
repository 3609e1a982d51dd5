"""chat_template: conversations with exact masks, in one rendering and one tokenization each."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.chat_templates import NAMES, built_in
from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow, Example, Piece, Row
from stages.tokenize.formats import Surroundings
from stages.tokenize.gaps import Region
from stages.tokenize.messages import NO_CALLS, Conversation, MessageReader
from stages.tokenize.template import ChatTemplate
from stages.tokenize.terminators import terminators_of
from stages.tokenize.traced import turn_of
from stages.tokenize.turns import Turns, locate


class ChatFormat:
    """Rows with a list of messages.

    Trained are turns by their role, their own flag or their details, and after them the tokens that end a turn as ``train_on_eos``
    and ``train_on_eot`` say, wherever the template puts them. Headers are never trained.

    Attributes:
        warnings: what the user should know of the entry, whatever its rows are.
    """

    def __init__(self, entry: DatasetFormat, around: Surroundings) -> None:
        self._template = ChatTemplate(template_text(entry, around), around.special_tokens, around.options.chat_template_kwargs)
        self._read = MessageReader(entry, around.options.train_on_inputs, self._template.words, self._template.knows_null)
        self._terminators, self.warnings = terminators_of(entry, around, self._template.text)

    def __call__(self, row: Row) -> Example:
        """The row's text and what of it is trained.

        Raises:
            BadRow: it holds no conversation, or not one that the template takes.
        """
        conversation = self._read(row)
        trained = conversation.trained
        needed = range(len(trained)) if self._terminators.after_all else [turn for turn, chosen in enumerate(trained) if chosen]
        turns = locate(conversation, self._template, needed, self._terminators.texts)
        regions = [*_contents(turns, conversation), *self._terminators.trained(turns, trained)]
        return Example((Piece(str.__str__(turns.text), _sorted(regions)),), slow=turns.slow)


def chat_format(entry: DatasetFormat, around: Surroundings) -> ChatFormat:
    """The format of a dataset entry of type chat_template."""
    return ChatFormat(entry, around)


def template_text(entry: DatasetFormat, around: Surroundings) -> str:
    """The template of a dataset entry: its own, or the one that data/tokenizer has.

    Raises:
        RegrowError: there is none.
    """
    if entry.chat_template_jinja is not None:
        return entry.chat_template_jinja
    name = entry.chat_template or "tokenizer_default"
    if name in NAMES:
        return built_in(name)
    if around.chat_template is not None:
        return around.chat_template
    fallback = name.removeprefix("tokenizer_default_fallback_")
    if fallback not in NAMES:
        raise RegrowError(
            f"Dataset type {entry.type!r} needs a chat template, and the tokenizer has none.",
            "Set chat_template: chatml (or another), or chat_template_jinja.",
        )
    return built_in(fallback)


def _contents(turns: Turns, conversation: Conversation) -> Iterable[Region]:
    for turn, chosen in enumerate(conversation.trained):
        if chosen and turn not in conversation.details:
            regions = turns.regions.get(turn, [])
            if conversation.messages[turn].get("tool_calls") and not any(start < end for start, end in regions):
                raise BadRow(NO_CALLS)
            yield from regions
    if conversation.details:
        _require_traced(turns, conversation)
        for start, end, source, offset in turns.spans:
            for first, last in conversation.details.get(source, ()):
                yield start + max(first - offset, 0), min(start + last - offset, end)


def _require_traced(turns: Turns, conversation: Conversation) -> None:
    traced = {span[2] for span in turns.spans}
    for source, spans in conversation.details.items():
        if spans and source not in traced and any(start < end for start, end in turns.regions.get(turn_of(source), ())):
            raise BadRow("the chat template changes a turn of which only parts are trained")


def _sorted(regions: Iterable[Region]) -> tuple[Region, ...]:
    """In order, each once, without those that hold no character."""
    return tuple(sorted({region for region in regions if region[0] < region[1]}))
