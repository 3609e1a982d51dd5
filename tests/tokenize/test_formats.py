"""completion, alpaca, your own formats, and rows that cannot be used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from tests.tokenize.rows import chat, full_text, tokenize, trained_text


def test_completion_trains_everything_and_ends(tmp_path: Path) -> None:
    table = tokenize(tmp_path, [{"body": "to be"}], type="completion", field="body")
    assert trained_text(table, 0) == full_text(table, 0) == "to be<|im_end|>"


def test_alpaca_trains_the_answer(tmp_path: Path) -> None:
    rows = [{"instruction": "Add {input}.", "input": "1, 2", "output": "3"}, {"instruction": "Hi", "input": "", "output": "Hello"}]
    table = tokenize(tmp_path, rows, type="alpaca")
    assert trained_text(table, 0) == "3<|im_end|>" and trained_text(table, 1) == "Hello<|im_end|>"
    assert "### Instruction:\nAdd {input}.\n\n### Input:\n1, 2\n\n### Response:\n3" in full_text(table, 0)
    assert full_text(table, 1) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHi\n\n### Response:\nHello<|im_end|>"
    )


def test_bad_rows_are_counted_named_and_do_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = chat(("user", "q"), ("assistant", "a"))
    lines = [good, "{broken", json.dumps([1]), "", chat(("user", "only a question")), {"messages": "no"}, {"other": 1}, good]
    table = tokenize(tmp_path, lines)
    assert table.row.tolist() == [0, 7]
    artifact = open_artifact(tmp_path / "data" / "tokens")
    assert artifact.content["sources"][0]["rejected"] == {
        "malformed JSON": 1,
        "not a JSON object": 1,
        "no trained token": 1,
        "column 'messages' is text that is not JSON": 1,
        "column 'messages' holds no messages": 1,
    }
    named = [json.loads(line) for line in (tmp_path / "data/tokens/rejected.jsonl").read_text().splitlines()]
    assert {"source": "train-00", "file": "rows.jsonl", "row": 1, "reason": "malformed JSON"} in named and len(named) == 5
    assert "1 rows left out: malformed JSON (first: line or item 2" in capsys.readouterr().err


def test_a_source_without_a_usable_row_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"rows.jsonl\): no row can be used: column 'instruction' is missing \(2 rows\)"):
        tokenize(tmp_path, [{"a": 1}, {"a": 2}], type="alpaca")


def test_a_template_that_prints_the_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="today's date"):
        tokenize(tmp_path, [chat(("assistant", "a"))], chat_template="{{ strftime_now('%d') }}{{ messages[0].content }}")


def test_a_template_cannot_leave_the_sandbox(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="no row can be used"):
        tokenize(tmp_path, [chat(("assistant", "a"))], chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}")


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own_formats_under_test"
    folder.mkdir()
    (folder / "ask.py").write_text(
        "def to_messages(row):\n"
        "    return {'messages': [{'role': 'user', 'content': row['q']}, {'role': 'assistant', 'content': row['a']}]}\n"
    )
    (folder / "axolotl.py").write_text(
        "def load(tokenizer, cfg, ds_cfg):\n"
        "    class Strategy:\n"
        "        def tokenize_prompt(self, row):\n"
        "            ids = tokenizer(row['q'], add_special_tokens=False)['input_ids']\n"
        "            return {'input_ids': ids, 'labels': [-100] + ids[1:]}\n"
        "    return Strategy()\n"
    )
    (folder / "configured.py").write_text(
        "def load_with_config(tokenizer, cfg):\n"
        "    class Strategy:\n"
        "        def tokenize_prompt(self, row):\n"
        "            ids = tokenizer(row['q'], add_special_tokens=False)['input_ids']\n"
        "            trained = cfg.train_on_inputs and cfg.no_such_option is None\n"
        "            return {'input_ids': ids, 'labels': ids if trained else [-100] * len(ids)}\n"
        "    return Strategy()\n\n"
        "def load_shifted(tokenizer, cfg):\n"
        "    strategy = load_with_config(tokenizer, cfg)\n"
        "    made = strategy.tokenize_prompt\n"
        "    strategy.tokenize_prompt = lambda row: {'input_ids': made(row)['input_ids'], 'labels': [7] * len(row['q'])}\n"
        "    return strategy\n\n"
        "def load_nothing(tokenizer, cfg):\n"
        "    return cfg['sequence_len']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def test_a_function_of_your_own_makes_messages(own_modules: Path) -> None:
    table = tokenize(own_modules.parent, [{"q": "?", "a": "!"}, {"q": "no answer"}], type="own_formats_under_test.ask.to_messages")
    assert len(table) == 1 and trained_text(table, 0) == "!<|im_end|>"


def test_axolotl_strategies_of_your_own_are_taken_as_they_are(own_modules: Path) -> None:
    table = tokenize(own_modules.parent, [{"q": "abc"}], type="own_formats_under_test.axolotl")
    assert full_text(table, 0) == "abc" and trained_text(table, 0) == "bc"


def test_strategies_of_your_own_get_the_options(own_modules: Path) -> None:
    name = "own_formats_under_test.configured.load_with_config"
    table = tokenize(own_modules.parent, [{"q": "abc"}], type=name, train_on_inputs=True)
    assert trained_text(table, 0) == "abc"


def test_strategies_of_your_own_cannot_train_other_tokens_than_there_are(own_modules: Path) -> None:
    with pytest.raises(RegrowError, match="label 7 at position 0 is neither the token there"):
        tokenize(own_modules.parent, [{"q": "abc"}], type="own_formats_under_test.configured.load_shifted")


def test_a_strategy_that_cannot_be_loaded_says_why(own_modules: Path) -> None:
    with pytest.raises(RegrowError, match="cannot be loaded: it raises KeyError: 'sequence_len'"):
        tokenize(own_modules.parent, [{"q": "abc"}], type="own_formats_under_test.configured.load_nothing")


def test_an_unknown_type_says_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"'alpaka_chat.load_qa' is neither (.|\n)*Did you mean `alpaca_chat.load_qa`"):
        tokenize(tmp_path, [{"a": 1}], type="alpaka_chat.load_qa")
