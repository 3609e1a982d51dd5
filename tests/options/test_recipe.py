"""A params.yaml as users write it, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.recipe import load_recipe
from pipeline.options.views import FetchOptions, TokenizeOptions, TrainOptions

GOOD = """\
base_model: ./base
datasets:
  - path: rows.jsonl
    type: chat_template
learning_rate: 2e-4
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(RegrowError) as caught:
        load_recipe(write(folder, text))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_views_hold_what_the_file_says(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD + "seed: 0x10\nnum_epochs: 3\nbf16: no\n"))
    train = recipe.view(TrainOptions)
    assert (train.learning_rate, train.seed, train.num_epochs, train.bf16) == (2e-4, 16, 3.0, False)
    assert recipe.view(FetchOptions).canonical()["datasets"] == [{"path": "rows.jsonl"}]
    assert recipe.view(TokenizeOptions).datasets[0].type == "chat_template"


def test_a_view_has_no_option_of_another_stage(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        load_recipe(write(tmp_path, GOOD)).view(TrainOptions).base_model  # type: ignore[attr-defined]  # noqa: B018


def test_all_problems_come_at_once_in_file_order(tmp_path: Path) -> None:
    message = refused(
        tmp_path,
        "base_model: ./base\ndatasets:\n  - path: rows.jsonl\n    typ: chat_template\nlora_r: true\nlearnig_rate: 1\nwarmup_steps: 1\n"
        "warmup_ratio: 0.1\nseed: -1\neval:\n  batchsize: 3\n",
    )
    wrong = [line.split(": ")[:2] for line in message.splitlines()]
    assert wrong == [
        ["params.yaml:1", "learning_rate"],
        ["params.yaml:3", "datasets.0.type"],
        ["params.yaml:4", "datasets.0.typ"],
        ["params.yaml:5", "lora_r"],
        ["params.yaml:6", "learnig_rate"],
        ["params.yaml:8", "warmup_ratio"],
        ["params.yaml:9", "seed"],
        ["params.yaml:11", "eval.batchsize"],
    ]


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("learning-rate: 1", "`learning_rate`"),
        ("eval: {batchsize: 3}", "`batch_size`"),
        ("special_tokens: {pad_tokn: x}", "`pad_token`"),
        ("field_messages: x", "`datasets.field_messages`"),
        ("max_new_tokens: 3", "`eval.max_new_tokens`"),
    ],
)
def test_misspelt_and_misplaced_keys_get_a_suggestion(tmp_path: Path, line: str, suggestion: str) -> None:
    assert suggestion in refused(tmp_path, GOOD + line + "\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lora_r: eight", 'lora_r: "eight" — expected a whole number, at least 1; for example `lora_r: 8`, the default'),
        ("lora_r: true", "expected a whole number"),
        ("seed: 4.5", "expected a whole number"),
        ("num_epochs: .nan", "expected a number, more than 0"),
        ("learning_rate: .inf", ""),
        ("lora_target_modules: [1]", "expected text or a list of text"),
        ("eval: 3", "expected a mapping"),
        ("adapter: qlor", '"qlor"'),
        ("revision_of_model: 1234567", "expected text"),
        ("val_set_size: 1", "0.05"),
        ("adapter: lora", "lora_target_linear"),
        ("chat_template: jinja", "chat_template_jinja"),
    ],
)
def test_wrong_values_name_key_line_and_what_would_work(tmp_path: Path, line: str, expected: str) -> None:
    message = refused(
        tmp_path, GOOD.replace("learning_rate: 2e-4\n", "") + line + "\n" + ("" if "learning_rate" in line else "learning_rate: 1\n")
    )
    assert message.startswith("params.yaml:5: " + line.split(":")[0])
    assert expected in message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\na: 2\n", "params.yaml:2: a is given twice, first in line 1"),
        ("eval:\n  samples: 1\n  samples: 2\n", "params.yaml:3: eval.samples is given twice"),
        ("a: [1\n", "params.yaml:2"),
        ("a:\n\t- b\n", "params.yaml:2"),
        ("a: *x\n", "anchor"),
        ("a: &x [*x]\n", "contains itself"),
        ("- a\n", "a list"),
        ("hello\n", "a single value"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("[a]: 1\n", "key"),
        ("a: \x00\n", "params.yaml"),
        ("", "base_model"),
        ("# nothing\n", "base_model"),
    ],
)
def test_what_is_no_yaml_is_one_clear_error(tmp_path: Path, text: str, where: str) -> None:
    assert where in refused(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RegrowError):
            load_recipe(path)
    (tmp_path / "params.yaml").write_bytes(b"base_model: \xff\n")
    with pytest.raises(RegrowError, match="UTF-8"):
        load_recipe(tmp_path / "params.yaml")


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    text = (
        GOOD.replace("  - path: rows.jsonl\n", "  - &first\n    path: rows.jsonl\n")
        + "test_datasets:\n  - <<: *first\n    path: other.jsonl\n"
    )
    assert load_recipe(write(tmp_path, text)).options.test_datasets[0].type == "chat_template"  # type: ignore[index]
