"""Each recognition takes what it is for, and nothing that only resembles it. Texts stand for ids: one character, one token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.align import Different, compare_rows
from tests.oracle.case import Expected, Made, Row, Sequence
from tests.oracle.compare import compare
from tests.oracle.context import Context
from tests.oracle.differences import NAMES
from tests.oracle.ours import Change
from tests.oracle.reading import Reading
from tests.oracle.readings import READINGS, without_unknown_keys
from tests.oracle.stops import stop_of

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
EOS, BOS, PAD = "$", "^", "_"


def told(marked: str) -> Sequence:
    """Ids and labels of a text whose trained parts stand between « and »."""
    ids, labels, trained = [], [], False
    for character in marked:
        if character in "«»":
            trained = character == "«"
            continue
        ids.append(ord(character))
        labels.append(ord(character) if trained else -100)
    return Sequence(tuple(ids), tuple(labels))


def row(*marked: str, number: int = 0) -> Row:
    answers = [told(text) for text in marked]
    return Row(answers[0], answers[1] if len(answers) > 1 else None, number=(0, number))


def context(raw: Mapping[str, Any] | None = None, **config: Any) -> Context:
    kind = config.pop("type", "chat_template")
    entry = {"path": "data.jsonl", "type": kind} | config.pop("entry", {})
    rows = {(0, 0): raw or {}}
    special = frozenset(map(ord, (EOS, BOS)))
    everything = {"sequence_len": 16, "datasets": [entry]} | config
    return Context(everything, rows, lambda ids: "".join(map(chr, ids)), special, ord(BOS), ord(EOS))


def turns(*contents: str | None, **further: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": content} | further for place, content in enumerate(contents)]}


DETAIL = {"message_field_training_detail": "spans"}
SPANS = turns("q", "abcd", spans=[{"begin_offset": 1, "end_offset": 2, "train": True}])
CALL = turns("q", "", tool_calls=[{"function": {"name": "f"}}])
SIGNS = {"chat_template_jinja": "{{ m.content|length }}{{ m.content }}"}
REFLECTED = {"output": "", "reflection": "r", "corrected": "c"}
LLAMA = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
HUMAN = {"conversations": [{"role": "human", "value": "q"}, {"role": "bot", "value": "a"}]}

Case = tuple[str, Context, str, str, list[tuple[str, str]]]

MASKED: list[Case] = [
    (
        "end-of-an-empty-turn",
        context(turns("q", "")),
        "q$a:$",
        "q$a:«$»",
        [("q$a:$", "q«$»a:«$»"), ("q$a«:»$", "q$a:«$»"), ("q$a:$", "q$«a:$»")],
    ),
    ("end-of-an-empty-turn", context(turns("q", "")), "«$»q$a:$", "$q$a:«$»", [("«$q»$a:$", "$q$a:«$»")]),
    (
        "end-behind-a-tag",
        context(turns("q", "a")),
        "q:«a»<end>$",
        "q:«a»<end>«$»",
        [("q:«a»<q>$", "q:«a»<q>«$»"), ("«a»<end$", "«a»«<end$»")],
    ),
    (
        "text-like-a-placeholder",
        context(turns("[[dummy_message]]", "b")),
        "[[dummy_message]]«$a:b$»",
        "[[dummy_message]]$a:«b$»",
        [("[[d«ummy_message]]$a:b$»", "[[dummy_message]]$a:«b$»"), ("[[dummy_message]]$a:«b»$", "[[dummy_message]]$a:«b$»")],
    ),
    (
        "text-derived-from-the-answer",
        context(turns("q", "four"), entry=SIGNS),
        "q a«4:four$»",
        "q a4:«four$»",
        [("q «a4:four$»", "q a4:«four»$"), ("«q» a4:«four$»", "q a4:«four$»")],
    ),
    ("token-across-the-header", context(type="messages"), "a:\n«x$»", "a:«\nx$»", [("a:\n«x$»", "a«:\nx$»"), ("a:x«$»", "a:«x$»")]),
    ("border-of-a-training-detail", context(SPANS, entry=DETAIL), "a«b»cd", "a«bc»d", [("«ab»cd", "ab«cd»"), ("a«bc»d", "a«b»cd")]),
    ("tags-around-tool-calls", context(CALL), "<c>«f</c>»", "«<c>f</c>»", [("<c>f«</c>»", "<«c>f</c>»"), ("<c>f</c>", "«<c>f</c>»")]),
    ("double-bos", context(), "^^q«a$»", "^q«a$»", [("^^q«a$»", "^qq«a$»"), ("^^q«a$»", "^«qa$»")]),
    ("pygmalion-without-a-beginning", context(HUMAN, type="pygmalion"), "q«a$»", "^q«a$»", [("q«a$»", "^^q«a$»"), ("q«a$»", "^qa«$»")]),
    (
        "llama2-chat-masks",
        context(LLAMA, type="llama2_chat"),
        "q[/INST] a </s>____",
        "q[/INST]« a </s>»",
        [
            ("q[/INST] a </s>____", "q«[/INST] a </s>»"),
            ("q[/INST] a </s>__$_", "q[/INST]« a </s>»"),
            ("p[/INST] a </s>____", "q[/INST]« a </s>»"),
        ],
    ),
    (
        "reflections-cut-short",
        context(REFLECTED, type="reflection"),
        "q:«$»",
        "q:«T r c$»",
        [("q:«$»", "q:T r« c$»"), ("q:«$»", "p:«T r c$»")],
    ),
    ("reflections-cut-short", context(REFLECTED, type="reflection:chat"), "q:«T r $»", "q:«T r c$»", [("q:«T r $»", "q:«T r d$»")]),
    (
        "documents-without-an-end",
        context({"text": "abc"}, pretraining_dataset=[{"type": "pretrain"}]),
        "«abc»",
        "«abc$»",
        [("«abc»", "«abd$»"), ("«abc»", "«abcd$»"), ("«abc»", "«abc»$")],
    ),
]


@pytest.mark.parametrize(("name", "known", "theirs", "ours", "wrong"), MASKED)
def test_a_mask_is_taken_where_its_reason_holds_and_nowhere_else(
    name: str, known: Context, theirs: str, ours: str, wrong: list[tuple[str, str]]
) -> None:
    assert judged([row(theirs)], [row(ours)], known) == {name}
    others = (Context(decode=known.decode), context(turns("q", "a")))
    for other in () if name == "end-behind-a-tag" else others:  # its reason is in the ids alone
        with pytest.raises(Different):
            judged([row(theirs)], [row(ours)], Context(other.config, other.rows, other.decode, known.special, None, known.eos))
    for left, right in wrong:
        with pytest.raises(Different):
            judged([row(left)], [row(right)], known)


def judged(theirs: list[Row], ours: list[Row], known: Context, ordered: bool = True, **more: Any) -> set[str]:
    made = Made(tuple(theirs), tuple(more.get("tested", ())))
    rejected = Made(tuple(ours), tuple(more.get("ours_tested", more.get("tested", ()))), rejected=tuple(more.get("rejected", ())))
    return compare_rows(Expected(made, ordered), rejected, known)


def test_rows_that_train_nothing_may_be_missing_and_no_others() -> None:
    theirs = [row("q"), row("q«a»"), row("p")]
    assert judged(theirs, [row("q«a»")], context()) == {"rows-that-train-nothing"}
    for ours in ([], [row("q«b»")], [row("q«a»"), row("q«a»")]):
        with pytest.raises(Different):
            judged(theirs, ours, context())


def test_without_an_order_rows_are_a_multiset_and_sizes_of_splits_hold() -> None:
    theirs, ours = [row("q«a»"), row("p«b»")], [row("p«b»"), row("r«c»")]
    assert judged(theirs, ours, context(val_set_size=1), ordered=False, tested=[row("r«c»")], ours_tested=[row("q«a»")]) == set()
    for made, tested in (([row("p«b»")], [row("r«c»"), row("q«a»")]), (ours, [row("r«c»")])):
        with pytest.raises(Different):
            judged(theirs, made, context(val_set_size=1), ordered=False, tested=[row("r«c»")], ours_tested=tested)


def test_pairs_that_are_the_same_may_be_missing() -> None:
    assert judged([row("«qa»", "«qb»"), row("«q»", "«q»")], [row("«qa»", "«qb»")], context()) == {"pairs-cut-to-the-same"}
    with pytest.raises(Different):
        judged([row("«qa»", "«qb»"), row("«q»", "«p»")], [row("«qa»", "«qb»")], context())


def test_rows_that_are_tested_may_be_missing_from_training() -> None:
    both = [row("q«a»"), row("p«b»")]
    assert judged(both, both[1:], context(dataset_exact_deduplication=True), tested=both[:1]) == {"rows-that-are-tested-too"}
    for known, tested in ((context(), both[:1]), (context(dataset_exact_deduplication=True), [])):
        with pytest.raises(Different):
            judged(both, both[1:], known, tested=tested)


def test_each_row_that_we_reject_stands_for_one_of_theirs() -> None:
    reason = "a message has tool calls alone, which the chat template does not print"
    theirs, ours = [row("q«$»"), row("p«b»")], [row("p«b»")]
    assert judged(theirs, ours, context(), rejected=[reason]) == {"calls-that-a-template-does-not-print"}
    for rejected in ([], ["malformed JSON"]):
        with pytest.raises(Different):
            judged(theirs, ours, context(), rejected=rejected)


def test_a_long_text_may_go_on_after_64_rows() -> None:
    slices = [row("«aaaa»") for _ in range(64)]
    known = context({"text": 64 * "aaaa" + "b"}, type="completion", sequence_len=4)
    assert judged(slices, [*slices, row("«b$»")], known) == {"texts-over-64-sequences"}
    for theirs, ours in (
        (slices[:63], slices),
        *((slices, [*slices, other]) for other in (row("«b$»", number=1), row("«c$»"), row("b«$»"))),
    ):
        with pytest.raises(Different):
            judged(theirs, ours, known)


STOPPED = [
    ("null-is-nothing", "'dict object' has no attribute 'content'", context(turns("q", None))),
    ("null-is-nothing", 'can only concatenate str (not "NoneType") to str', context(turns("q", "a") | {"system": None})),
    ("calls-alternate", "After the optional system message, conversation roles must alternate user/assistant", context(CALL)),
    ("phi-4-by-name", "2 validation errors\nchat_template.str-enum[ChatTemplate]", context(chat_template="phi_4")),
    ("unused-columns", "Value error, Set `remove_unused_columns: False` when using kto", context(rl="kto")),
    ("ready-rows-without-a-mask", "'NoneType' object has no attribute 'startswith'", context({"input_ids": [], "labels": []}, type=None)),
    (
        "answers-that-begin-with-a-thought",
        "Prompt, chosen and rejected keys are required for DPO/ORPO datasets",
        context(rl="dpo", type="chat_template.default", chat_template="qwen3"),
    ),
    ("pairs-with-a-system-turn", "invalid number of turns", context({"chosen": [{"role": "system", "content": "s"}]})),
    ("rewards-without-a-system-column", "'system'", context({"input": "q"}, reward_model=True)),
    (
        "test-sets-of-their-own-type",
        "Failed to load dataset transform function for type 'x'",
        context(rl="dpo", type="chatml.intel", test_datasets=[{"type": {"field_prompt": "p"}}]),
    ),
    ("roles-of-preferences", "'human'", context(rl="dpo", entry={"roles": {"user": ["human"]}})),
]


@pytest.mark.parametrize(("name", "error", "known"), STOPPED)
def test_an_error_is_known_by_its_words_and_by_what_causes_it(name: str, error: str, known: Context) -> None:
    ours = Made((row("q«a»"),))
    assert stop_of(error, ours, known) == name
    assert stop_of("out of memory", ours, known) is None
    assert stop_of(error, Made(), known) is None
    assert stop_of(error, ours, context(turns("q", "a"), chat_template="chatml")) is None


def test_a_reading_asks_that_rows_it_leaves_alone_are_the_same() -> None:
    reading = READINGS["nectar-ranks"]
    ranked = {"answers": [{"answer": text, "rank": rank} for text, rank in (("worst", 3), ("best", 1), ("second", 2))]}
    known = context(ranked, type="zephyr.nectar")
    theirs = Made((row("q«worst»", "q«second»"),))
    assert reading.is_all(Made((row("q«best»", "q«second»"),)), theirs, known)
    assert not reading.is_all(Made((row("q«worst»", "q«best»"),)), theirs, known)
    assert not reading.is_all(Made((row("q«best»", "q«second»"),)), theirs, context({"answers": []}, type="zephyr.nectar"))


def test_a_reading_that_drops_a_share_asks_for_a_part_of_the_rows() -> None:
    reading, all_rows = READINGS["shares-of-preferences"], Made((row("q«a»"), row("p«b»", number=1)))
    assert reading.is_all(Made(all_rows.train[1:]), all_rows, context())
    for ours in ((), all_rows.train, (row("q«b»"),)):
        assert not reading.is_all(Made(ours), all_rows, context())


def test_a_reading_of_what_we_refuse_asks_for_that_refusal() -> None:
    reading = READINGS["refused-options"]
    refusal = (
        "params.yaml:4: datasets.0.preprocess_shards: 3 — refused: rows are streamed, memory does not grow with their number; remove it"
    )
    assert reading.is_all(Made(error=refusal), Made((row("a"),)), context())
    assert not reading.is_all(Made(error="data.jsonl: no row can be used"), Made((row("a"),)), context())


def test_unknown_keys_are_dropped_where_nothing_else_is_wrong() -> None:
    unknown = 'params.yaml:5: datasets.0.field_mesages: "m" — no such option; did you mean field_messages?'
    reading = without_unknown_keys(unknown)
    assert isinstance(reading, Reading) and isinstance(reading.change, Change)
    config = {"datasets": [{"path": "p", "field_mesages": "m"}]}
    reading.change.config(config)
    assert config == {"datasets": [{"path": "p"}]}
    assert without_unknown_keys(f"{unknown}\nparams.yaml:6: lora_r: 0 — must be at least 1") is None
    assert without_unknown_keys("params.yaml:6: lora_r: 0 — must be at least 1") is None


def test_no_row_left_is_an_error_where_theirs_train_nothing() -> None:
    error = "data.jsonl: no row can be used: no trained token (2 rows).\n  Its dataset entry has type 'alpaca'."
    assert compare(Expected(Made((row("q"),)), True), Made(error=error), context()) == {"rows-that-train-nothing"}
    for theirs, said in ((row("q«a»"), error), (row("q"), "data.jsonl: no row can be used: malformed JSON (2 rows).")):
        with pytest.raises(Different):
            compare(Expected(Made((theirs,)), True), Made(error=said), context())


def test_texts_of_preferences_are_compared_with_what_is_trained() -> None:
    texts = ({"prompt": "q", "chosen": "a$", "rejected": "b$"},)
    expected = Expected(Made((row("q«a$»", "q«b$»"),)), True, texts)
    assert compare(expected, Made((row("^q«a$»", "^q«b$»"),)), context()) == {"seam-of-prompt-and-answer"}
    assert compare(expected, Made((row("q«a$»", "q«b$»"),)), context()) == set()
    long = Expected(Made(), True, ({"prompt": "q" * 30, "chosen": "a$", "rejected": "b$"},))
    for ours in (row("q«b$»", "q«b$»"), row("qa«$»", "q«b$»")):
        with pytest.raises(Different):
            compare(expected, Made((ours,)), context())
    with pytest.raises(Different):
        compare(long, Made((row("«" + "q" * 30 + "a$»", "q" * 30 + "«b$»"),)), context())


def test_every_name_has_a_section_and_every_section_a_name() -> None:
    headings = re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(NAMES)
