"""The fast engine gives what the reference gives, or is not used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.progress import Progress
from stages.tokenize import STAGE
from stages.tokenize.engine import FastEngine, ReferenceEngine, choose_engine, open_engine
from stages.tokenize.token_bytes import token_bytes
from tests.tiny import publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import chat, publish_raw

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60) | st.sampled_from(
    ["", "<|im_end|>", "a<|im_start|>b", "  two  spaces\n\n", "👩‍🔧é日本", "12345", "<|im_end|><|im_end|>", "e\u0301\u0000"]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with merges, trained on a few lines, and special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(
        ["the wind came from the north, the lamp burned", "日本語の日本語", "naïve été été", "  spaces   and\n\nlines"] * 9, trainer
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def changed(tokenizer: Path, folder: Path, **settings: Any) -> Path:
    """The same tokenizer.json with other settings at the top."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer.read_text()) | settings))
    return path


def test_the_fast_engine_is_chosen_for_a_byte_level_vocabulary(tokenizer: Path) -> None:
    name, reason = choose_engine(tokenizer)
    assert name == "fastokens"
    assert "equal to tokenizers on" in reason


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXT, st.lists(st.integers(0, 60), max_size=6)), max_size=8))
def test_ids_and_masks_are_those_of_the_reference(tokenizer: Path, drawn: list[tuple[str, list[int]]]) -> None:
    texts = [text for text, _ in drawn]
    spans = [pairs([min(at, len(text)) for at in cuts]) for text, cuts in drawn]
    fast, reference = (open_engine(tokenizer, name).encode(texts, spans) for name in ("fastokens", "tokenizers"))
    assert fast.offsets.tolist() == reference.offsets.tolist()
    assert fast.ids.tolist() == reference.ids.tolist()
    assert fast.mask.tolist() == reference.mask.tolist()


def pairs(cuts: Sequence[int]) -> list[tuple[int, int]]:
    ordered = sorted(cuts)
    return list(zip(ordered[::2], ordered[1::2], strict=False))


def test_a_trained_token_is_one_that_covers_a_trained_character(tokenizer: Path) -> None:
    from tokenizers import Tokenizer

    text = "the wind\n\n日本語<|im_end|>"
    made = open_engine(tokenizer, "fastokens").encode([text], [[(4, 10)]])
    reference = Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False)
    assert made.ids.tolist() == reference.ids
    expected = [int(any(4 <= at < 10 for at in range(*span))) for span in reference.offsets]
    assert made.mask.tolist() == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
    ],
)
def test_a_tokenizer_whose_ids_do_not_say_which_bytes_they_are_goes_to_the_reference(
    tokenizer: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    path = changed(tokenizer, tmp_path, **settings)
    assert token_bytes(path) is None
    assert choose_engine(path)[0] == "tokenizers"


def test_an_added_token_that_swallows_spaces_is_masked_by_the_reference(tokenizer: Path, tmp_path: Path) -> None:
    content = json.loads(tokenizer.read_text())
    content["added_tokens"][-1]["lstrip"] = True
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    texts, spans = ["wind   <|im_end|> north", "plain été"], [[(4, 6)], [(6, 9)]]
    fast, reference = open_engine(path, "fastokens").encode(texts, spans), ReferenceEngine(path).encode(texts, spans)
    assert (fast.ids.tolist(), fast.mask.tolist()) == (reference.ids.tolist(), reference.mask.tolist())


def test_when_the_fast_engine_is_wrong_on_a_sample_everything_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FastEngine.flat

    def wrong(self: FastEngine, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = original(self, texts)
        return np.where(ids == 5, 6, ids) if any("wind" in text for text in texts) else ids, offsets

    monkeypatch.setattr(FastEngine, "flat", wrong)
    said: list[str] = []

    class Listening(Progress):
        def say(self, message: str) -> None:
            said.append(message)

    data = tmp_path / "data"
    row = chat(("user", "wind" + chr(0x23)), ("assistant", "".join(map(chr, range(0x21, 0x7E)))))
    publish_raw(data, "rows.jsonl", (json.dumps(row) + "\n").encode())
    publish_artifact(data, "tokenizer", save_tokenizer)
    options = {"datasets": [{"path": "rows.jsonl", "type": "chat_template"}]}
    outputs, _ = run_stage(STAGE, tmp_path, options, progress=Listening())
    monkeypatch.undo()
    assert "Tokenizing with fastokens" in said[0]
    assert "Tokenizing with tokenizers (fastokens gives other ids" in said[1]
    again, _ = run_stage(STAGE, tmp_path, options, cache=tmp_path / "fresh")
    assert again["tokens"].digest == outputs["tokens"].digest


@pytest.mark.parametrize(("message", "told"), [("", "ValueError"), ("no such model\nat line 3", "no such model")])
def test_a_tokenizer_that_the_fast_engine_refuses_goes_to_the_reference(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch, message: str, told: str
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError(message)

    monkeypatch.setattr(FastEngine, "__init__", refuse)
    assert choose_engine(tokenizer) == ("tokenizers", f"fastokens cannot read it: {told}")
