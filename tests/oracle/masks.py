"""Axolotl's ids and labels of one row, where they are wrong, made what they should be.

Each correction looks at the positions where its labels differ from ours and takes over ours where it can say why, and nowhere
else: whatever is left makes the case different. Each has a section of the same name in docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tests.oracle.case import Sequence
from tests.oracle.context import Context, Raw, contents_of, messages_of, text_of


@dataclass(frozen=True)
class Pair:
    """Axolotl's row and ours, and the row of the data."""

    theirs: Sequence
    ours: Sequence
    raw: Raw
    context: Context

    @property
    def runs(self) -> list[range]:
        """Stretches in which the labels differ and one of the two trains all of it."""
        return list(_runs(self.theirs.labels, self.ours.labels)) if self.theirs.ids == self.ours.ids else []

    def we_train(self, at: int) -> bool:
        """Whether we train the token there; not outside of the row."""
        return 0 <= at < len(self.ours.labels) and self.ours.labels[at] != -100

    def text(self, run: range) -> str:
        """The text there."""
        return self.context.decode(self.ours.ids[run.start : run.stop])

    def taking_ours(self, runs: Iterable[range]) -> Sequence:
        """Axolotl's row with our labels in these stretches."""
        labels = list(self.theirs.labels)
        for run in runs:
            labels[run.start : run.stop] = self.ours.labels[run.start : run.stop]
        return replace(self.theirs, labels=tuple(labels))


def _runs(theirs: tuple[int, ...], ours: tuple[int, ...]) -> Iterator[range]:
    start = 0
    kinds = [0 if left == right else 1 if left == -100 else 2 for left, right in zip(theirs, ours, strict=True)]
    for at in range(1, len(kinds) + 1):
        if at == len(kinds) or kinds[at] != kinds[start]:
            if kinds[start]:
                yield range(start, at)
            start = at


def end_of_an_empty_turn(pair: Pair) -> Sequence:
    """An empty answer is an answer: its end is trained. Where a template begins with that token, Axolotl trains the first one instead."""
    empty = sum(map(_nothing, contents_of(pair.raw, pair.context.config)))
    ends = [run for run in pair.runs if _is_an_end(pair, run) and not pair.we_train(run.start - 1) and not _follows_text(pair, run)]
    if not ends or len(ends) > empty:
        return pair.theirs
    first = [run for run in pair.runs if run == range(0, 1) and pair.ours.ids[0] in {pair.ours.ids[end.start] for end in ends}]
    return pair.taking_ours([*ends, *first])


def _nothing(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not re.sub(r"<(think|/think)>", "", value).strip())


def _is_an_end(pair: Pair, run: range) -> bool:
    """Whether it is a token that ends turns, and we alone train it."""
    named = (pair.context.config.get("special_tokens") or {}).get("eos_token")
    ends = {named, *(pair.context.config.get("eot_tokens") or [])}
    is_one = set(pair.ours.ids[run.start : run.stop]) == {pair.context.eos} or pair.text(run) in ends
    return is_one and pair.we_train(run.start)


def _follows_text(pair: Pair, run: range) -> bool:
    before = pair.context.decode(pair.ours.ids[: run.start])
    texts = [text.strip() for text in contents_of(pair.raw, pair.context.config) if isinstance(text, str)]
    return any(text and before.endswith(text) for text in texts)


_REACH = 3
"""Tokens behind a turn among which Axolotl looks for its end."""


def end_behind_a_tag(pair: Pair) -> Sequence:
    """A template may print more between an answer and its end than Axolotl skips."""

    def follows(run: range) -> bool:
        turn = next((at for at in reversed(range(run.start)) if pair.we_train(at)), run.start)
        between = pair.ours.ids[turn + 1 : run.start]
        texts = [text.strip() for text in contents_of(pair.raw, pair.context.config) if isinstance(text, str)]
        is_a_tag = len(between) > _REACH and not pair.context.special & set(between)
        return is_a_tag and _is_an_end(pair, run) and not any(text and text in pair.context.decode(between) for text in texts)

    return pair.taking_ours(filter(follows, pair.runs))


_PLACEHOLDERS = ("[[dummy_message]]", "zzdummymessagezz")


def text_like_a_placeholder(pair: Pair) -> Sequence:
    """Axolotl finds a turn by putting a placeholder in its place. Where the data holds it, the rest of the conversation is trained."""
    if not any(text in text_of(pair.raw).lower() for text in _PLACEHOLDERS):
        return pair.theirs

    def follows(run: range) -> bool:
        before = pair.context.decode(pair.ours.ids[: run.start + 1]).lower()
        return not pair.we_train(run.start) and any(text in before for text in _PLACEHOLDERS)

    return pair.taking_ours(filter(follows, pair.runs))


def text_derived_from_the_answer(pair: Pair) -> Sequence:
    """What a template derives from an answer (its length) changes with the placeholder, so that Axolotl takes it for the answer."""
    lengths = {str(len(value)) for message in messages_of(pair.raw) for value in message.values() if isinstance(value, str)}
    templates = [str(holder.get("chat_template_jinja")) for holder in (pair.context.config, *pair.context.entries())]
    if not any(re.search(r"\|\s*length", template) for template in templates):
        return pair.theirs
    return pair.taking_ours(
        run for run in pair.runs if pair.we_train(run.stop) and not pair.we_train(run.start) and _is_behind_one(pair, run, lengths)
    )


def _is_behind_one(pair: Pair, run: range, lengths: set[str]) -> bool:
    """Whether a length stands before the answer, and the run is some of it or of what is between."""
    found = re.search(r"(\d+)[^\w\ufffd]{0,4}$", pair.context.decode(pair.ours.ids[: run.stop]))
    return found is not None and found[1] in lengths and len(pair.text(run)) <= len(found[0])


def token_across_the_header(pair: Pair) -> Sequence:
    """Type messages: a token that holds the end of a header and the beginning of an answer is trained, and the token before it is not."""
    if not pair.context.type_is("messages"):
        return pair.theirs
    return pair.taking_ours(
        run for run in pair.runs if len(run) == 1 and pair.theirs.labels[run.stop : run.stop + 1] != (-100,) and _blank_before(pair, run)
    )


def _blank_before(pair: Pair, run: range) -> bool:
    return pair.we_train(run.stop) and not pair.we_train(run.start - 1) and not pair.text(run).strip()


def border_of_a_training_detail(pair: Pair) -> Sequence:
    """Tokens at the border of spans: those with a character of the span are trained, and no others."""
    keys = [entry.get("message_field_training_detail") for entry in pair.context.entries()]
    spans = [span for message in messages_of(pair.raw) for key in keys if key for span in message.get(key) or []]
    if not spans or not all(_said(span, pair) for span in spans if span.get("train")):
        return pair.theirs
    return pair.taking_ours(run for run in pair.runs if len(run) == 1 and pair.we_train(run.start - 1) != pair.we_train(run.stop))


def _said(span: Raw, pair: Pair) -> bool:
    """Whether what we train holds the text of a span."""
    trained = [token for token, label in zip(pair.ours.ids, pair.ours.labels, strict=True) if label != -100]
    texts = [message.get("content") for message in messages_of(pair.raw)]
    wanted = {text[span["begin_offset"] : span["end_offset"] + 1].strip() for text in texts if isinstance(text, str)}
    return any(text and text in pair.context.decode(trained) for text in wanted)


def tags_around_tool_calls(pair: Pair) -> Sequence:
    """A turn with calls begins and ends where its own tags do, not where its text begins to differ from a placeholder's."""
    if not any(message.get("tool_calls") for message in messages_of(pair.raw)):
        return pair.theirs

    def beside(run: range) -> bool:
        both = [at for at in (run.start - 1, run.stop) if pair.we_train(at) and pair.theirs.labels[at] != -100]
        return bool(both) and ("<" in pair.text(run) or "tool_call_id" in pair.text(run))

    return pair.taking_ours(filter(beside, pair.runs))


def double_bos(pair: Pair) -> Sequence:
    """A template that prints the beginning of sequence needs no second one."""
    bos, theirs = pair.context.bos, pair.theirs
    if bos is not None and theirs.ids[:2] == (bos, bos) and pair.ours.ids == theirs.ids[1:]:
        return Sequence(theirs.ids[1:], theirs.labels[1:])
    return theirs


def pygmalion_without_a_beginning(pair: Pair) -> Sequence:
    """Every row begins with the beginning of sequence, not only those with a system turn."""
    bos, theirs = pair.context.bos, pair.theirs
    roles = [message.get("role") for message in messages_of(pair.raw)]
    if pair.context.type_is("pygmalion") and bos is not None and roles and roles[0] != "system" and theirs.ids[:1] != (bos,):
        return Sequence((bos, *theirs.ids), (-100, *theirs.labels))
    return theirs


def llama2_chat_masks(pair: Pair) -> Sequence:
    """Axolotl pads these rows to sequence_len and masks all of them where the tokenizer is not Llama 2's."""
    theirs, length = pair.theirs, len(pair.ours.ids)
    padding = set(theirs.ids[length:])
    if not pair.context.type_is("llama2_chat") or len(padding) > 1 or set(theirs.labels) != {-100} or not pair.raw:
        return theirs
    answers = [str(turn.get("value")).strip() for turn in messages_of(pair.raw) if turn.get("from") == "gpt"]
    wanted = "".join(f" {answer} </s>" for answer in answers)
    trained = pair.context.decode([token for token, label in zip(pair.ours.ids, pair.ours.labels, strict=True) if label != -100])
    seams = [text.replace("</s><", "</s>") for text in (trained, wanted)]  # the token of an end may hold the tag behind it
    known = theirs.ids[:length] == pair.ours.ids and seams[0] == seams[1]
    return pair.ours if known else theirs


def reflections_cut_short(pair: Pair) -> Sequence:
    """Axolotl leaves out the corrected answer in style chat, and the whole answer where one of its parts is empty."""
    theirs, eos = pair.theirs, pair.context.eos
    if not pair.context.type_is("reflection") or theirs.ids[-1:] != (eos,) or len(theirs.ids) >= len(pair.ours.ids):
        return theirs
    length, text = len(theirs.ids) - 1, pair.context.decode(pair.ours.ids)
    begins, ends = pair.context.decode(theirs.ids[:-1]), str(pair.raw.get("corrected")) + pair.context.decode(theirs.ids[-1:])
    same = theirs.ids[: length - 1] == pair.ours.ids[: length - 1] and theirs.labels[: length - 1] == pair.ours.labels[: length - 1]
    whole = same and text.startswith(begins) and text.endswith(ends)
    return pair.ours if whole and all(map(pair.we_train, range(length, len(pair.ours.ids)))) else theirs


def documents_without_an_end(pair: Pair) -> Sequence:
    """Axolotl ends no document that it streams for pretraining, and takes the first sequence_len - 2 tokens of a long one."""
    theirs, length = pair.theirs, len(pair.theirs.ids)
    if not pair.context.config.get("pretraining_dataset") or pair.ours.ids[:length] != theirs.ids or theirs.labels != theirs.ids:
        return theirs
    ended = pair.ours.ids[length:] == (pair.context.eos,)
    whole = ended or length == pair.context.config["sequence_len"] - 2
    return pair.ours if whole and pair.context.is_of_its_text(pair.ours, pair.raw) else theirs


MASKS: dict[str, Callable[[Pair], Sequence]] = {
    "double-bos": double_bos,
    "pygmalion-without-a-beginning": pygmalion_without_a_beginning,
    "llama2-chat-masks": llama2_chat_masks,
    "reflections-cut-short": reflections_cut_short,
    "documents-without-an-end": documents_without_an_end,
    "text-like-a-placeholder": text_like_a_placeholder,
    "text-derived-from-the-answer": text_derived_from_the_answer,
    "token-across-the-header": token_across_the_header,
    "border-of-a-training-detail": border_of_a_training_detail,
    "tags-around-tool-calls": tags_around_tool_calls,
    "end-of-an-empty-turn": end_of_an_empty_turn,
    "end-behind-a-tag": end_behind_a_tag,
}
"""By the name of their section in docs/differences.md."""
