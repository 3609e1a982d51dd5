"""Preferences, rewards and judged steps: whole texts, and what of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.options.dataset_types import TYPES
from tests.tokenize.aims import answers, left_out, tokenize_for
from tests.tokenize.rows import decode
from tests.tokenize.test_instruct import GOLDEN

DPO, KTO, ORPO = {"rl": "dpo"}, {"rl": "kto"}, {"rl": "orpo"}
END = "<|im_end|>"


@pytest.mark.parametrize("kind", dict.fromkeys(item["type"] for item in GOLDEN["pairs"] + GOLDEN["feedback"]))
def test_texts_of_a_type_are_those_it_is_known_by(tmp_path: Path, kind: str) -> None:
    for aim, items in ((DPO, GOLDEN["pairs"]), (KTO, GOLDEN["feedback"])):
        items = [item for item in items if item["type"] == kind]
        table = tokenize_for(tmp_path / aim["rl"], aim, [item["row"] for item in items], type=kind) if items else None
        for row, item in enumerate(items):
            wanted = [answer if answer.endswith(END) else answer + END for answer in item["answers"]]
            assert table is not None and answers(table, row) == tuple((item["prompt"] + answer, answer) for answer in wanted)


def test_every_named_type_is_tested() -> None:
    tested = {item["type"] for item in GOLDEN["pairs"]}
    assert tested | {"zephyr.nectar", "passthrough", "chat_template.default", "chat_template.argilla_chat"} == set(TYPES["pairs"])
    assert {item["type"] for item in GOLDEN["feedback"]} == set(TYPES["feedback"])


def test_the_best_answers_of_nectar_are_the_pair(tmp_path: Path) -> None:
    ranked = [{"answer": text, "rank": rank} for text, rank in (("worst", 3), ("best", 1), ("second", 2))]
    table = tokenize_for(tmp_path, {"rl": "simpo"}, [{"prompt": "q", "answers": ranked}], type="zephyr.nectar")
    assert [trained for _, trained in answers(table, 0)] == [f"best{END}", f"second{END}"]


@pytest.mark.parametrize("kind", [None, "passthrough"])
def test_rows_may_be_ready(tmp_path: Path, kind: str | None) -> None:
    turns = {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}]}
    rows = [
        {"prompt": "q ", "chosen": "a", "rejected": f"b{END}"},
        turns | {"rejected": [{"role": "assistant", "content": "b"}]},
        {name: [*turns["prompt"], {"role": "assistant", "content": text}] for name, text in (("chosen", "a"), ("rejected", "b"))},
    ]
    table = tokenize_for(tmp_path, {"rl": "ipo"}, rows, type=kind)
    asked = f"<|im_start|>user\nq{END}\n<|im_start|>assistant\n"
    assert answers(table, 0) == ((f"q a{END}", f"a{END}"), (f"q b{END}", f"b{END}"))
    assert answers(table, 1) == answers(table, 2) == ((f"{asked}a{END}", f"a{END}"), (f"{asked}b{END}", f"b{END}"))


def test_a_mapping_says_columns_and_texts_of_pairs(tmp_path: Path) -> None:
    mapping = {"field_prompt": "q", "field_chosen": "good", "prompt_format": "[{system}] {prompt}:", "chosen_format": " {chosen}!"}
    table = tokenize_for(tmp_path, DPO, [{"q": "x", "good": "{y}", "rejected": "z"}], type=mapping)
    assert answers(table, 0) == ((f"[] x: {{y}}!{END}", f" {{y}}!{END}"), (f"[] x:z{END}", f"z{END}"))


def test_a_mapping_says_columns_and_texts_of_judged_answers(tmp_path: Path) -> None:
    mapping = {"field_completion": "a", "field_label": "ok", "prompt_format": "{system}{prompt}", "completion_format": " {completion}"}
    rows: list[dict[str, Any]] = [{"prompt": "q", "a": "x", "ok": label} for label in (True, 0, "yes")] + [{"prompt": "q", "a": "x"}]
    table = tokenize_for(tmp_path, KTO, rows, type=mapping)
    assert answers(table, 0) == ((f"q x{END}", f" x{END}"),)
    assert [table.labels(row).tolist() for row in range(len(table))] == [[1], [0]]
    assert left_out(tmp_path) == {"column 'ok' is neither true nor false": 1, "column 'ok' is missing": 1}


def test_a_token_that_spans_prompt_and_answer_is_trained(tmp_path: Path) -> None:
    """The tiny tokenizer has no merges, so a character of several bytes is what a border can cut."""
    table = tokenize_for(tmp_path, DPO, [{"prompt": "é", "chosen": "ü", "rejected": "ö"}], type="passthrough")
    assert table.mask(0).tolist() == [0, 0, 1, 1, 1] and answers(table, 0)[0] == (f"éü{END}", f"ü{END}")


CONTEXT = [{"who": "sys", "says": "S"}, {"who": "human", "says": "q"}]
ROLES = {"system": ["sys"], "user": ["human"], "assistant": ["bot"]}
KEYS: dict[str, Any] = {"message_property_mappings": {"role": "who", "content": "says"}, "roles": ROLES}


@pytest.mark.parametrize("answer", [str, lambda text: {"who": "bot", "says": text}, lambda text: [*CONTEXT, {"who": "bot", "says": text}]])
def test_a_chat_template_puts_pairs_into_text(tmp_path: Path, answer: Any) -> None:
    row = {"turns": CONTEXT, "good": answer("a"), "bad": answer("b")}
    keys = {"field_messages": "turns", "field_chosen": "good", "field_rejected": "bad"} | KEYS
    table = tokenize_for(tmp_path, DPO, [row], type="chat_template.default", **keys)
    asked = f"<|im_start|>system\nS{END}\n<|im_start|>user\nq{END}\n<|im_start|>assistant\n"
    assert answers(table, 0) == ((f"{asked}a{END}", f"a{END}"), (f"{asked}b{END}", f"b{END}"))


def test_whole_conversations_end_in_the_answers(tmp_path: Path) -> None:
    row = {name: [*CONTEXT, {"who": "bot", "says": text}] for name, text in (("chosen", "a"), ("rejected", "b"))}
    table = tokenize_for(tmp_path, DPO, [row, {"chosen": row["chosen"]}], type="chat_template.argilla_chat", **KEYS)
    assert [trained for _, trained in answers(table, 0)] == [f"a{END}", f"b{END}"]
    assert left_out(tmp_path) == {"column 'rejected' is missing": 1}


# Prints the system text with the last question, and only while that has no answer.
LATE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}["
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}"
    "{{ m.content }}]{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


def test_a_prompt_is_what_the_model_is_asked_with(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}
    table = tokenize_for(tmp_path, DPO, [row], template=LATE_SYSTEM, type="chat_template.default")
    assert answers(table, 0)[0] == (f"[S q] a{END}", f" a{END}")


def test_the_reasoning_of_an_answer_is_part_of_it(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]"
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]<think> {% endif %}"
    )
    row = {"messages": [{"role": "user", "content": "q"}], "rejected": "b"}
    row["chosen"] = {"role": "assistant", "content": "a", "reasoning_content": "r"}
    table = tokenize_for(tmp_path, DPO, [row], type="chat_template.default", chat_template_jinja=template)
    assert answers(table, 0) == (
        (f"[user]q[assistant]<think> r</think>a{END}", f"r</think>a{END}"),
        (f"[user]q[assistant]<think> b{END}", f"b{END}"),
    )


@pytest.mark.parametrize("kind", ["chat_template.argilla", "orpo.chat_template"])
def test_orpo_rows_keep_what_the_template_prints_behind_the_answer(tmp_path: Path, kind: str) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
    row = {"prompt": "q", "system": "S", "chosen": turns, "rejected": [turns[0], {"role": "assistant", "content": "b"}]}
    table = tokenize_for(tmp_path, ORPO, [row], type=kind)
    asked = f"<|im_start|>system\nS{END}\n<|im_start|>user\nq{END}\n<|im_start|>assistant\n"
    assert answers(table, 0) == ((f"{asked}a{END}\n", f"a{END}\n"), (f"{asked}b{END}\n", f"b{END}\n"))


def test_scored_conversations_are_whole(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"system": "", "input": "q", "chosen": "a", "rejected": "b"},
        {"input": "q", "chosen": "a", "rejected": "b"},
    ]
    table = tokenize_for(tmp_path, {"reward_model": True}, rows, type="bradley_terry.chat_template")
    asked = f"<|im_start|>user\nq{END}\n<|im_start|>assistant\n"
    assert answers(table, 1) == ((f"{asked}a{END}\n",) * 2, (f"{asked}b{END}\n",) * 2)
    assert answers(table, 0)[0][0] == f"<|im_start|>system\n{END}\n{asked}a{END}\n"


STEPS = {"prompt": "q", "completions": ["one", "two", "three"], "labels": [True, 0, 1]}


@pytest.mark.parametrize(
    ("keys", "text", "trained", "labels"),
    [
        ({}, "q" + "one\ntwo\nthree\n", "\n\n\n", [1, 0, 1]),
        ({"step_separator": " ки"}, "q" + "one киtwo киthree ки", None, [1, 0, 1]),
        ({"train_on_last_step_only": True}, "q" + "one\ntwo\nthree\n", "\n", [1]),
        ({"max_completion_length": 9}, "q" + "one\ntwo\nt", "\n\n", [1, 0]),
    ],
)
def test_the_last_token_after_a_step_carries_its_label(
    tmp_path: Path, keys: dict[str, Any], text: str, trained: str | None, labels: list[int]
) -> None:
    table = tokenize_for(tmp_path, {"process_reward_model": True}, [STEPS], type="stepwise_supervised", **keys)
    assert decode(table.ids(0).tolist()) == f"<|im_start|>{text}" and table.labels(0).tolist() == labels
    assert int(table.mask(0).sum()) == len(labels)
    assert trained is None or answers(table, 0)[0][1] == trained


@pytest.mark.parametrize(
    ("aim", "kind", "row", "reason"),
    [
        (DPO, "chatml.intel", {"chosen": "a", "rejected": "b"}, "column 'question' is missing"),
        (
            DPO,
            "chatml.argilla_chat",
            {"chosen": [{"role": "user", "content": "q"}], "rejected": []},
            "column 'chosen' holds an answer and no",
        ),
        (DPO, "passthrough", {"prompt": "q", "chosen": "", "rejected": "b"}, "the better answer is empty"),
        (DPO, "passthrough", {"prompt": "", "chosen": "a", "rejected": "b"}, "the prompt is empty"),
        (DPO, "chat_template.default", {"messages": [], "chosen": "a", "rejected": "b"}, "column 'messages' is empty"),
        (DPO, "chat_template.default", {"messages": "q", "chosen": 1, "rejected": "b"}, "column 'chosen' holds no message"),
        (KTO, "chatml.argilla", {"instruction": "q", "completion": "a"}, "column 'label' is missing"),
        ({"reward_model": True}, "bradley_terry.chat_template", {"input": "q", "chosen": "a"}, "column 'rejected' is missing"),
        ({"process_reward_model": True}, "stepwise_supervised", STEPS | {"labels": [1]}, "3 completions and 1 labels"),
        ({"process_reward_model": True}, "stepwise_supervised", STEPS | {"labels": [1, 2, 0]}, "column 'labels' holds something"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, aim: dict[str, Any], kind: str, row: dict[str, Any], reason: str) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    good = {"question": "q", "instruction": "q", "prompt": "q", "input": "q", "messages": turns[:1], "completion": "a", "label": True}
    good |= {"chosen": turns, "rejected": turns} if kind.endswith("argilla_chat") else {"chosen": "a", "rejected": "b"}
    good |= STEPS
    assert len(tokenize_for(tmp_path, aim, [good, row], type=kind)) == 1
    (found,) = left_out(tmp_path)
    assert found.startswith(reason)


@pytest.fixture
def own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_pairs_under_test.py").write_text(
        "def to_pair(row):\n    return {'prompt': row['q'], 'chosen': row['a'], 'rejected': row['b']}\n\n"
        "def axolotl(cfg, **keywords):\n    return to_pair, {'remove_columns': []}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["to_pair", "axolotl"])
def test_functions_of_your_own_make_pairs(own_rows: Path, name: str) -> None:
    table = tokenize_for(own_rows, DPO, [{"q": "x", "a": "y", "b": "z"}, {"q": "x"}], type=f"own_pairs_under_test.{name}")
    assert answers(table, 0)[0] == (f"xy{END}", f"y{END}")
    assert left_out(own_rows) == {f"own_pairs_under_test.{name} raises KeyError: 'a'": 1}
