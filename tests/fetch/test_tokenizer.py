"""The tokenizer that training uses: split, special tokens, padding, chat template, length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from tests.fetch.made import fetch, link, make_gguf, write

Change = Callable[[Any], None]


def project(tmp_path: Path, base: Path) -> Path:
    folder = tmp_path / "project"
    link(folder, "base", base)
    link(folder, "train-00", write(tmp_path / "rows.jsonl"))
    return folder


def load(artifacts: Any) -> Any:
    """As every later stage and any user loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(artifacts["tokenizer"].path)


def own_tokenizer(folder: Path, change: Change) -> Path:
    """A tokenizer folder made of the tiny one: ``change`` gets the tokenizer before it is saved."""
    from transformers import PreTrainedTokenizerFast

    from tests import tiny

    tiny.save_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


def fetch_with(workspace: Path, tmp_path: Path, change: Change, **options: Any) -> tuple[Any, list[str]]:
    """Fetch with ``tokenizer_config`` naming the changed tiny tokenizer."""
    link(workspace, "tokenizer", own_tokenizer(tmp_path / "own", change))
    artifacts, _, said = fetch(workspace, tokenizer_config="./own", **options)
    return load(artifacts), said


def test_gguf_digits_are_split_as_the_file_states(tmp_path: Path, gguf_file: Path, tiny_llama: Any) -> None:
    """Expected tokens are worked out by hand from the file's three merges: two newlines, two spaces, h and i."""
    text = "hi  7\n\n12"
    artifacts, metrics, _ = fetch(project(tmp_path, gguf_file), base_model="./tiny.gguf")
    tokenizer = load(artifacts)
    assert tokenizer.tokenize(text) == ["hi", "ĠĠ", "7", "ĊĊ", "1", "2"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert metrics["vocab_size"] == len(tokenizer) == 262
    plain = make_gguf(tmp_path / "tiny.gguf", tiny_llama, pre="gpt-2")
    artifacts, _, _ = fetch(project(tmp_path / "plain", plain), base_model="./tiny.gguf")
    assert load(artifacts).tokenize(text) == ["hi", "Ġ", "Ġ", "7", "Ċ", "Ċ", "1", "2"]


@pytest.mark.parametrize(
    ("pre", "message"), [("no-such-split", "splits text as 'no-such-split'"), (None, "does not say how text is split")]
)
def test_a_gguf_split_that_is_not_known_is_refused(tmp_path: Path, tiny_llama: Any, pre: str | None, message: str) -> None:
    file = make_gguf(tmp_path / "tiny.gguf", tiny_llama, pre=pre)
    with pytest.raises(RegrowError, match=rf"{message}.*\n.*tokenizer_config"):
        fetch(project(tmp_path, file), base_model="./tiny.gguf")


def test_gguf_tokenizer_is_what_transformers_makes_of_it(tmp_path: Path, tiny_llama: Any) -> None:
    from transformers import AutoTokenizer

    file = make_gguf(tmp_path / "tiny.gguf", tiny_llama, pre="llama-bpe", padding_token_id=0)
    artifacts, _, said = fetch(project(tmp_path, file), base_model="./tiny.gguf")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ours = load(artifacts)
    assert json.loads(ours.backend_tokenizer.to_str()) == json.loads(theirs.backend_tokenizer.to_str())
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert said == []


def test_padding_is_never_the_token_that_ends_a_turn(tmp_path: Path, gguf_file: Path) -> None:
    artifacts, _, said = fetch(project(tmp_path, gguf_file), base_model="./tiny.gguf")
    tokenizer = load(artifacts)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    assert any("padding with '<|endoftext|>'" in line for line in said)


def test_without_a_token_to_spare_the_end_of_a_turn_is_padding(workspace: Path, tmp_path: Path) -> None:
    def without_pad(tokenizer: Any) -> None:
        tokenizer.pad_token = None
        tokenizer.eos_token = "<|endoftext|>"

    tokenizer, said = fetch_with(workspace, tmp_path, without_pad)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    assert any("no pad token; padding with '<|endoftext|>'" in line for line in said)


def test_a_tokenizer_with_neither_padding_nor_an_end_needs_to_be_told(workspace: Path, tmp_path: Path) -> None:
    def bare(tokenizer: Any) -> None:
        tokenizer.pad_token = tokenizer.eos_token = None
        tokenizer.chat_template = "{{ messages[0].content }}<|endoftext|>"

    with pytest.raises(RegrowError, match=r"tokenizer_config '\./own'.*no pad token.*\n.*special_tokens\.pad_token"):
        fetch_with(workspace, tmp_path, bare)


def test_a_token_that_the_chat_template_writes_is_not_taken_for_padding(workspace: Path, tmp_path: Path) -> None:
    def without_pad(tokenizer: Any) -> None:
        tokenizer.pad_token = None
        tokenizer.chat_template = "{{ messages[0].content }}<|endoftext|>"

    assert fetch_with(workspace, tmp_path, without_pad)[0].pad_token == "<|im_end|>"


def test_tokenizer_json_is_the_truth_whatever_class_the_config_names(workspace: Path, tmp_path: Path) -> None:
    """GPT2Tokenizer, which SmolLM2's own repository names, builds GPT-2's split anew in transformers 5 and loses this one."""
    from tokenizers import pre_tokenizers

    def digits(tokenizer: Any) -> None:
        split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)

    folder = own_tokenizer(tmp_path / "own", digits)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}))
    link(workspace, "tokenizer", folder)
    artifacts, _, _ = fetch(workspace, tokenizer_config="./own")
    assert "Digits" in str(load(artifacts).backend_tokenizer.pre_tokenizer)


def test_special_tokens_that_the_vocabulary_has_are_set(workspace: Path) -> None:
    artifacts, _, _ = fetch(
        workspace, special_tokens={"unk_token": "<|endoftext|>", "eos_token": "<|im_start|>", "bos_token": "<|im_end|>"}
    )
    tokenizer = load(artifacts)
    assert (tokenizer.unk_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert len(tokenizer) == 259
    assert artifacts["tokenizer"].content["new_tokens"] == []


def test_new_tokens_get_ids_in_the_order_that_axolotl_gives_them(workspace: Path) -> None:
    """bos, eos and pad in this order, however the file has them; then ordinary tokens; further special ones last."""
    special = {"pad_token": "<p>", "additional_special_tokens": ["<x>", "<|im_start|>"], "eos_token": "<e>", "bos_token": "<b>"}
    artifacts, _, said = fetch(workspace, special_tokens=special, tokens=["<t>", "🚲"])
    tokenizer = load(artifacts)
    new = ["<b>", "<e>", "<p>", "<t>", "🚲", "<x>"]
    assert tokenizer.convert_tokens_to_ids(new) == list(range(259, 265))
    assert artifacts["tokenizer"].content == {"vocab_size": 265, "new_tokens": new, "pad_token": "<p>"}
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<b>", "<e>", "<p>")
    assert tokenizer("a<t> <x>🚲<|im_start|>")["input_ids"][1:] == [262, *tokenizer(" ")["input_ids"], 264, 263, 1]
    assert tokenizer.decode([262, 263, 264], skip_special_tokens=True) == "<t>🚲"
    assert sum("is not in the vocabulary and was added" in line for line in said) == 3


def test_a_slip_in_a_special_token_is_told_with_what_resembles_it(workspace: Path) -> None:
    _, _, said = fetch(workspace, special_tokens={"eos_token": "<|im_ends|>"})
    assert any("'<|im_ends|>' is not in the vocabulary" in line and "<|im_end|>" in line for line in said)


def test_added_tokens_get_other_texts_and_keep_their_ids_and_duties(workspace: Path) -> None:
    artifacts, _, _ = fetch(workspace, added_tokens_overrides={0: "<note>", 2: "<end>"}, special_tokens={"unk_token": "<note>"})
    tokenizer = load(artifacts)
    assert len(tokenizer) == 259 and artifacts["tokenizer"].content["new_tokens"] == []
    assert tokenizer("<note><end>")["input_ids"] == [0, 2]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<end>", 2)
    assert "<|im_end|>" not in tokenizer.get_vocab()


def test_a_renamed_token_is_renamed_where_it_is_put_around_a_text(workspace: Path, tmp_path: Path) -> None:
    from tokenizers import processors

    def begin(tokenizer: Any) -> None:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
        )

    tokenizer, _ = fetch_with(workspace, tmp_path, begin, added_tokens_overrides={1: "<s>"})
    assert tokenizer("a")["input_ids"][0] == 1 == tokenizer.bos_token_id
    assert "<|im_start|>" not in tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({40: "<note>"}, r"token id 40 is no added token.\n.*0: <\|endoftext\|>, 1: <\|im_start\|>"),
        ({0: "<|im_end|>"}, r"'<\|im_end\|>' \(for token id 0\) is already the token of id 2"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(workspace: Path, overrides: dict[int, str], message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        fetch(workspace, added_tokens_overrides=overrides)


def test_a_tokenizer_that_adds_bos_adds_the_new_one(workspace: Path, tmp_path: Path) -> None:
    from tokenizers import processors

    def begin(tokenizer: Any) -> None:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
        )

    tokenizer, _ = fetch_with(workspace, tmp_path, begin, special_tokens={"bos_token": "<|endoftext|>", "pad_token": "<|im_start|>"})
    assert tokenizer("a")["input_ids"][0] == 0
    assert len(tokenizer("a")["input_ids"]) == 2


def test_the_maximum_length_comes_from_the_model_when_the_tokenizer_has_none(tmp_path: Path, workspace: Path, gguf_file: Path) -> None:
    assert load(fetch(workspace)[0]).model_max_length == 512
    artifacts, _, _ = fetch(project(tmp_path / "gguf", gguf_file), base_model="./tiny.gguf")
    assert load(artifacts).model_max_length == 384

    def short(tokenizer: Any) -> None:
        tokenizer.model_max_length = 100

    assert fetch_with(workspace, tmp_path, short)[0].model_max_length == 100


MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("options", "rendered"),
    [
        ({"chat_template": "chatml"}, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n"),
        ({"chat_template": "tokenizer_default"}, "own"),
        ({}, "own"),
        ({"chat_template_jinja": "{% for m in messages %}[{{ m.content }}]{% endfor %}"}, "[a][b]"),
        ({"chat_template": "jinja", "chat_template_jinja": "{% generation %}x{% endgeneration %}"}, "x"),
        ({"chat_template": "exaone"}, "[|system|][|endofturn|]\n[|user|]a\n[|assistant|]b[|endofturn|]\n[|assistant|]"),
        ({"chat_template": "tokenizer_default_fallback_exaone"}, "own"),
    ],
)
def test_the_chosen_chat_template_is_saved(workspace: Path, tmp_path: Path, options: dict[str, str], rendered: str) -> None:
    def own(tokenizer: Any) -> None:
        tokenizer.chat_template = "own"

    tokenizer, _ = fetch_with(workspace, tmp_path, own, **options)
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == rendered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chat_template": "tokenizer_default"}, "the tokenizer has no chat template"),
        ({"chat_template": "jinja"}, "chat_template_jinja is not set"),
        ({"chat_template": "chatml", "chat_template_jinja": "x"}, "chat_template is 'chatml', but chat_template_jinja is given"),
        ({"chat_template_jinja": "a\n{% for %}"}, r"not a Jinja template \(line 2\)"),
    ],
)
def test_contradictions_and_faults_of_chat_templates_are_refused(
    workspace: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    def bare(tokenizer: Any) -> None:
        tokenizer.chat_template = None

    def drop(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)

    folder = own_tokenizer(tmp_path / "own", bare)
    drop(folder)
    link(workspace, "tokenizer", folder)
    with pytest.raises(RegrowError, match=message):
        fetch(workspace, tokenizer_config="./own", **options)


def bare(tokenizer: Any) -> None:
    tokenizer.chat_template = None


def without_template(workspace: Path, tmp_path: Path, **options: Any) -> Any:
    folder = own_tokenizer(tmp_path / "own", bare)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    link(workspace, "tokenizer", folder)
    return load(fetch(workspace, tokenizer_config="./own", **options)[0])


def test_a_fallback_serves_a_tokenizer_without_a_template(workspace: Path, tmp_path: Path) -> None:
    tokenizer = without_template(workspace, tmp_path, chat_template="tokenizer_default_fallback_exaone")
    assert tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False) == "[|system|][|endofturn|]\n[|user|]a\n"


@pytest.mark.parametrize("text", ["Be brief.", "\"Quoted\" 'é' 🚲\n{{ x }} {% if %} \\ %}\t\u2028"])
def test_a_default_system_message_begins_conversations_without_one(workspace: Path, text: str) -> None:
    tokenizer = load(fetch(workspace, chat_template="chatml", default_system_message=text)[0])
    rest = "<|im_start|>user\na<|im_end|>\n"
    assert tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False) == f"<|im_start|>system\n{text}<|im_end|>\n{rest}"
    own = [{"role": "system", "content": "Own."}, *MESSAGES[:1]]
    assert tokenizer.apply_chat_template(own, tokenize=False) == f"<|im_start|>system\nOwn.<|im_end|>\n{rest}"


def test_the_template_may_be_saved_inside_the_configuration(workspace: Path) -> None:
    inside, beside = (fetch(workspace, chat_template="chatml", tokenizer_save_jinja_files=file)[0] for file in (False, True))
    assert "chat_template.jinja" not in inside["tokenizer"].files and "chat_template.jinja" in beside["tokenizer"].files
    assert load(inside).chat_template == load(beside).chat_template
