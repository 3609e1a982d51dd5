"""Every kind of tokenizer: ids are those of `tokenizers`, and trained are the tokens that cover a trained character."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stages.tokenize.engine import Engine, FastEngine, ReferenceEngine, choose_engine, open_engine
from stages.tokenize.token_bytes import token_bytes
from tests.tokenize.tokenizers_made import FAST, OTHERS, save

CHARACTERS = st.characters(exclude_categories=("Cs",)) | st.sampled_from(" \n▁é\u0301\u0316\u212b\u1f71ｱ")
WORDS = st.sampled_from(["<|im_end|>", "<|im_start|>", "</s>", "▁▁", "\n\n", "<0x0A>", "  ", " the", "wind", "日本語", "e\u0301", "\u0344"])
TEXT = st.lists(CHARACTERS | WORDS, max_size=30).map("".join)


@pytest.fixture(scope="module", params=[*FAST, *OTHERS])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("made"), (FAST | OTHERS)[request.param]())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXT, st.lists(st.integers(0, 40), max_size=6)), max_size=5))
def test_ids_and_masks(path: Path, drawn: list[tuple[str, list[int]]]) -> None:
    texts = [text for text, _ in drawn]
    cuts = [sorted(min(place, len(text)) for place in places) for text, places in drawn]
    spans = [list(zip(places[::2], places[1::2], strict=False)) for places in cuts]
    check(path, texts, spans)


def check(path: Path, texts: list[str], spans: list[list[tuple[int, int]]]) -> None:
    """The chosen engine against offsets of a plain tokenizer, character by character."""
    engine, plain = engines(path)
    for text, own, (ids, mask) in zip(texts, spans, engine.encode(texts, spans).texts(), strict=True):
        expected = plain.encode(text, add_special_tokens=False)
        trained = {place for start, end in own for place in range(start, end)}
        assert ids.tolist() == expected.ids
        assert mask.tolist() == [int(not trained.isdisjoint(range(*span))) for span in expected.offsets], (text, own)


@cache
def engines(path: Path) -> tuple[Engine, Tokenizer]:
    """The fast engine where ids say their bytes, proved or not: texts for which they do not are its own to find."""
    return open_engine(path, "fastokens" if token_bytes(path) else "tokenizers"), Tokenizer.from_file(str(path))


@pytest.mark.parametrize("kind", FAST)
def test_the_fast_engine_is_proved_equal_for_kinds_whose_ids_say_their_bytes(tmp_path: Path, kind: str) -> None:
    name, reason = choose_engine(save(tmp_path, FAST[kind]()))
    assert name == "fastokens", reason


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_go_to_the_reference(tmp_path: Path, kind: str) -> None:
    name, reason = choose_engine(save(tmp_path, OTHERS[kind]()))
    assert name == "tokenizers" and "do not say which bytes" in reason


@pytest.mark.parametrize("kind", ["Qwen", "Llama 2", "Llama 3"])
@pytest.mark.parametrize("odd", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}])
def test_odd_added_tokens(tmp_path: Path, kind: str, odd: dict[str, Any]) -> None:
    path = save(tmp_path, FAST[kind](), **odd)
    last = "\n\n" if kind == "Llama 2" else "<|im_end|>"
    texts = [f"the wind  {last}  north", f"{last}{last} x", f"a{last}b", f"été {last}\n", "plain", ""]
    spans = [[(4, 12)], [(0, 3)], [(1, 2)], [(2, 7)], [(0, 5)], []]
    check(path, texts, spans)


def test_ids_with_gaps(tmp_path: Path) -> None:
    made = FAST["Llama 3"]()
    vocabulary = made.get_vocab(with_added_tokens=False) | {"ing": 70_000}
    path = save(tmp_path, made, model={"vocab": vocabulary})
    engine = open_engine(path, choose_engine(path)[0])
    assert engine.reference.vocab_size > 70_000
    assert engine.encode(["ing"], [[]]).ids.tolist() == Tokenizer.from_file(str(path)).encode("ing").ids


def test_added_tokens_that_overlap(tmp_path: Path) -> None:
    made = FAST["Qwen"]()
    made.add_tokens(["<|im", "<|im_end|><", "the"])
    check(save(tmp_path, made), ["<|im_end|><|im_end|>the<|im<|im_start|>", "then<|im_en"], [[(3, 12)], [(0, 5)]])


@pytest.mark.parametrize("kind", ["GPT-2", "Llama 3"])
def test_merges_that_are_ignored_where_a_whole_word_is_a_token(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path, FAST[kind](), model={"ignore_merges": True})
    check(path, ["the wind from the north", "burned 2024 日本語"], [[(4, 8)], [(7, 12)]])


def test_one_text_that_the_fast_engine_refuses_leaves_it_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, FAST["GPT-2"]())
    engine = open_engine(path, "fastokens")
    assert isinstance(engine, FastEngine)
    original, original_reference, sent = FastEngine.flat, ReferenceEngine.encode, list[Any]()

    def refusing(self: FastEngine, texts: Any) -> Any:
        if "north" in texts:
            raise ValueError("a byte without a token")
        return original(self, texts)

    def referred(self: ReferenceEngine, texts: Any, trained: Any) -> Any:
        sent.append(texts)
        return original_reference(self, texts, trained)

    monkeypatch.setattr(FastEngine, "flat", refusing)
    monkeypatch.setattr(ReferenceEngine, "encode", referred)
    texts = ["the wind", "the lamp", "north", "burned"]
    made = engine.encode(texts, [[(0, 3)]] * 4)
    monkeypatch.undo()
    again = open_engine(path, "tokenizers").encode(texts, [[(0, 3)]] * 4)
    for name in ("ids", "mask", "offsets"):
        assert getattr(made, name).tolist() == getattr(again, name).tolist()
    assert sent == [["north"]]
