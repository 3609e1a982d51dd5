"""`regrow inspect` and `regrow learned`: what they show is what the artifact holds, and trained text is told from masked text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import RegrowError
from pipeline.inspection.characters import TokenText, visible
from pipeline.tokens import TokenTable, TokenWriter, id_dtype
from tests.tiny import publish_artifact, save_tokenizer

START, END = 1, 2
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json of the byte-level tokenizer without merges: a token per byte."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def letters(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny))


def encode(letters: Tokenizer, text: str) -> list[int]:
    """A token per byte; markup is plain text."""
    return [number for letter in text for number in letters.encode(letter, add_special_tokens=False).ids]


def publish(data: Path, rows: Sequence[dict[str, Any]], *files: str, tokenizer: Path | None = None, **content: Any) -> Path:
    """data/tokens of ``rows`` (ids, mask, source, …) from ``files``; the tokenizer beside it."""

    def fill(folder: Path) -> None:
        with TokenWriter(folder, id_dtype(259)) as writer:
            for number, row in enumerate(rows):
                extra = {name: value for name, value in row.items() if name in ("rejected", "labels")}
                writer.add(np.array(row["ids"]), np.array(row["mask"]), row.get("source", 0), 10 + number, **extra)

    sources = [facts(f"train-{at:02d}", file, [row for row in rows if row.get("source", 0) == at]) for at, file in enumerate(files)]
    publish_artifact(data, "tokens", fill, **({"sources": sources} | content))
    if tokenizer is not None:
        publish_artifact(data, "tokenizer", lambda folder: (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes()))
    return data / "tokens"


def facts(name: str, file: str, rows: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What a manifest says of a source."""
    tokens, trained = sum(len(row["ids"]) for row in rows), sum(sum(row["mask"]) for row in rows)
    longest = max((len(row["ids"]) for row in rows), default=0)
    counts: dict[str, Any] = {"rows": len(rows), "tokens": tokens, "trained_tokens": trained, "longest": longest, "rejected": {}}
    return {"name": name, "split": "train", "path": f"somewhere/{file}", "file": file, **counts, **more}


def run(*arguments: str | Path, **environment: str) -> str:
    """Standard output of a command that must work."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", **environment})
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def chat(tmp_path: Path, tiny: Path, letters: Tokenizer) -> Path:
    """Two sources of two rows; the answer and its end are trained."""
    question, answer = [START, *encode(letters, "ask\n"), END], [*encode(letters, " yes"), END]
    row: dict[str, Any] = {"ids": [*question, *answer], "mask": [0] * len(question) + [1] * len(answer)}
    other: dict[str, Any] = {"ids": encode(letters, "<|im_end|>\t"), "mask": [0] * 11}
    rows = [row, other | {"source": 1}, row | {"source": 1}, other]
    return publish(tmp_path / "data", rows, "a.jsonl", "b.jsonl", tokenizer=tiny)


def test_trained_text_stands_in_brackets_and_markup_that_is_none_is_told_apart(chat: Path) -> None:
    shown = run("inspect", chat)
    assert shown.split("\n\n")[0].splitlines() == [
        "row 0 · train-00 a.jsonl, row 10 · 11 tokens, 5 trained",
        "<|im_start|>ask↵",
        "<|im_end|>⟦␣yes<|im_end|>⟧",
    ]
    assert shown.count("row 10") + shown.count("row 11") + shown.count("row 12") + shown.count("row 13") == 4
    assert "\\<|im_end|>␉\n" in shown, "plain text, which only reads like the special token"


def test_a_terminal_gets_colours_instead(chat: Path) -> None:
    coloured = run("inspect", chat, "--row", "0", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[1;32m␣yes\x1b[0m\x1b[1;4;32m<|im_end|>" in coloured and "⟦" not in coloured
    plain = run("inspect", chat, "--row", "0", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")
    assert "⟦␣yes<|im_end|>⟧" in plain


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ([], [0, 1, 2, 3]),
        (["--count", "2"], [0, 1]),
        (["--row", "1"], [1]),
        (["--row", "1", "--count", "2"], [1, 2]),
        (["--source", "train-01"], [1, 2]),
        (["--source", "b.jsonl"], [1, 2]),
        (["--source", "somewhere/a.jsonl"], [0, 3]),
        (["--source", "train-01", "--row", "2"], [2]),
    ],
)
def test_rows_are_chosen_by_number_and_source(chat: Path, arguments: list[str], rows: list[int]) -> None:
    found = [json.loads(line) for line in run("inspect", chat, "--format", "jsonl", *arguments).splitlines()]
    table = TokenTable(chat)
    assert [record["number"] for record in found] == rows
    for record in found:
        number = record["number"]
        assert record["input_ids"] == table.ids(number).tolist()
        assert [label != -100 for label in record["labels"]] == [bool(trained) for trained in table.mask(number)]
        assert all(label in (-100, token) for label, token in zip(record["labels"], record["input_ids"], strict=True))
        assert (record["source"], record["row"]) == (f"train-{int(table.source[number]):02d}", int(table.row[number]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--row", "4"], ["no row 4", "0 to 3"]),
        (["--row", "-1"], ["no row -1", "0 to 3"]),
        (["--source", "c.jsonl"], ["no source 'c.jsonl'", "train-00 a.jsonl; train-01 b.jsonl"]),
        (["--source", "train-01", "--row", "0"], ["Row 0 belongs to train-00", "1 to 2"]),
    ],
)
def test_what_is_not_there_is_said_with_what_is(chat: Path, arguments: list[str], words: list[str]) -> None:
    with pytest.raises(RegrowError) as caught:
        run("inspect", chat, *arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_no_artifact_another_artifact_and_another_tokenizer_are_refused(tmp_path: Path, chat: Path, tiny: Path) -> None:
    for path, words in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "no manifest"), (chat.parent / "tokenizer", "no tokens")):
        with pytest.raises(RegrowError, match=words):
            run("inspect", path)
    manifest = json.loads((chat / "manifest.json").read_text())
    (chat / "manifest.json").write_text(json.dumps(manifest | {"inputs": {"tokenizer": "0" * 64}}))
    with pytest.raises(RegrowError, match=r"another tokenizer[\s\S]*regrow tokenize"):
        run("inspect", chat)
    assert len(run("inspect", chat, "--format", "jsonl").splitlines()) == 4
    (chat.parent / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(RegrowError, match=r"tokenizer.json does not exist[\s\S]*--format jsonl"):
        run("inspect", chat)


def test_two_answers_are_shown_both(tmp_path: Path, tiny: Path, letters: Tokenizer) -> None:
    chosen, rejected = encode(letters, "Q good"), encode(letters, "Q bad")
    row = {"ids": chosen, "mask": [0, 0, 1, 1, 1, 1], "rejected": (np.array(rejected), np.array([0, 0, 1, 1, 1]))}
    path = publish(tmp_path, [row], "a.jsonl", tokenizer=tiny)
    (record,) = map(json.loads, run("inspect", path, "--format", "jsonl").splitlines())
    assert record["rejected_input_ids"] == rejected and record["rejected_labels"] == [-100, -100, *rejected[2:]]
    shown = run("inspect", path)
    assert "chosen · 6 tokens, 4 trained\nQ␣⟦good⟧\n" in shown and "rejected · 5 tokens, 3 trained\nQ␣⟦bad⟧\n" in shown


def test_labels_of_rows_and_of_trained_tokens(tmp_path: Path, tiny: Path, letters: Tokenizer) -> None:
    ids = encode(letters, "abcd")
    liked = [{"ids": ids, "mask": [0, 0, 0, 1], "labels": np.array([value])} for value in (1, 0)]
    records = [
        json.loads(line) for line in run("inspect", publish(tmp_path / "a", liked, "a", labels="row"), "--format", "jsonl").splitlines()
    ]
    assert [(record["label"], record["labels"][3]) for record in records] == [(1, ids[3]), (0, ids[3])]
    steps = [
        {"ids": ids, "mask": [0, 1, 0, 1], "labels": np.array([1, 0])},
        {"ids": ids, "mask": [0, 1, 0, 0], "labels": np.array([0])},
    ]
    for name, rows, expected in (("b", steps, [[-100, 1, -100, 0], [-100, 0, -100, -100]]), ("d", steps[1:], [[-100, 0, -100, -100]])):
        path = publish(tmp_path / name, rows, "a", labels="token")
        records = [json.loads(line) for line in run("inspect", path, "--format", "jsonl").splitlines()]
        assert [record["labels"] for record in records] == expected
    assert "label 1 0" in run("inspect", publish(tmp_path / "c", steps, "a", tokenizer=tiny))


def test_a_pipe_that_closes_early_is_no_failure_to_explain(tmp_path: Path, tiny: Path, letters: Tokenizer) -> None:
    path = publish(tmp_path / "data", [{"ids": encode(letters, "word " * 50), "mask": [1] * 250}] * 400, "a.jsonl", tokenizer=tiny)
    for form in ("text", "jsonl"):
        command = [sys.executable, "-m", "pipeline", "inspect", str(path), "--count", "400", "--format", form]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), st.integers(0, 15)), max_size=12))
def test_every_character_is_whole_and_on_the_right_side(tiny: Path, letters: Tokenizer, parts: list[tuple[str, int]]) -> None:
    """A token per byte, trained or not at random: a character is trained where one of its bytes is."""
    text = "".join(part for part, _ in parts)
    pattern = [bit for _, number in parts for bit in f"{number:04b}"]
    mask = np.array([int(pattern[at % len(pattern)]) for at in range(len(text.encode()))], np.uint8)
    ends = np.cumsum([len(letter.encode()) for letter in text]).tolist()
    expected = [(letter, bool(mask[end - len(letter.encode()) : end].any())) for letter, end in zip(text, ends, strict=True)]
    found = TokenText(tiny).segments(np.array(encode(letters, text), np.int64), mask)
    assert [(letter, segment.trained) for segment in found for letter in segment.text] == expected


def test_bytes_that_are_no_character_are_shown(tiny: Path, letters: Tokenizer) -> None:
    half = encode(letters, "é")[:1]
    (segment,) = TokenText(tiny).segments(np.array([*encode(letters, "a"), *half, 999]), np.zeros(3, np.uint8))
    assert segment.text == "a\\xc3<no token 999>"


def save(folder: Path, vocabulary: dict[str, int], decoder: Any) -> Path:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


SENTENCEPIECE = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


@pytest.mark.parametrize(
    ("tokens", "decoder", "expected"),
    [
        (["▁Hi", "▁you", "<0xC3>", "<0xA9>"], decoders.Sequence(SENTENCEPIECE), [("Hi", 0), (" you", 1), ("é", 1)]),
        (["▁Hi", "▁you", "r", "."], decoders.Metaspace(), [("Hi", 0), (" you", 1), ("r", 0), (".", 1)]),
        (["Hi", "you", "##r", "."], decoders.WordPiece(), [("Hi", 0), (" you", 1), ("r", 0), (".", 1)]),
        (["Hi", "you"], None, [("Hi", 0), (" you", 1)]),
    ],
    ids=["sentencepiece with bytes", "metaspace", "wordpiece", "no decoder"],
)
def test_other_kinds_of_tokenizers(tmp_path: Path, tokens: list[str], decoder: Any, expected: list[tuple[str, int]]) -> None:
    """Every other token is trained; the trained half of a character takes all of it."""
    path = save(tmp_path, {token: at for at, token in enumerate([*tokens, "?"])}, decoder)
    ids, mask = [*range(len(tokens)), len(tokens) + 1], [*(at % 2 for at in range(len(tokens))), 0]
    found = [(segment.text, int(segment.trained)) for segment in TokenText(path).segments(np.array(ids), np.array(mask, np.uint8))]
    assert found == [*expected, ("</s>", 0)]


def test_what_would_move_a_terminal_is_a_picture() -> None:
    assert visible("a\x1b[31m\r\tb\x7f\x9b\u202ec\u2028é 👩\u200d🚀\n") == "a␛[31m␍␉b␡\\x9b\\u202ec\\u2028é 👩\u200d🚀↵\n"


def learned_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("learned", path, "--format", "json"))
    return found


def test_the_table_counts_what_the_artifact_holds(chat: Path) -> None:
    found, table = learned_of(chat), TokenTable(chat)
    for at, source in enumerate(found["sources"]):
        rows = np.flatnonzero(table.source == at)
        trained = sum(int(table.mask(int(row)).sum()) for row in rows)
        assert (source["rows"], source["tokens"], source["trained_tokens"]) == (len(rows), int(table.lengths[rows].sum()), trained)
        assert source["share_trained"] == round(trained / source["tokens"], 6) and source["longest"] == 11
    assert found["total"]["tokens"] == int(table.lengths.sum()) and found["total"]["share_trained"] == round(10 / 44, 6)
    shown = run("learned", chat)
    assert "train-01 b.jsonl" in shown and "22.7%" in shown and shown.splitlines()[-2].split()[:3] == ["all", "4", "44"]


def test_dropped_rows_are_told_by_reason(tmp_path: Path) -> None:
    row = {"ids": [5, 6], "mask": [0, 1]}
    sources = [
        facts("train-00", "a", [row], rejected={"malformed JSON": 2}),
        facts("train-01", "b", [], rejected={"malformed JSON": 1, "x": 5}),
    ]
    path = publish(tmp_path, [row], sources=sources)
    assert learned_of(path)["total"]["dropped"] == {"malformed JSON": 3, "x": 5}
    assert "1 malformed JSON" in run("learned", path) and learned_of(path)["sources"][1]["share_trained"] == 0


def draw(path: Path) -> str:
    picture = path.parent / "picture.svg"
    run("learned", path, "--picture", picture)
    return picture.read_text(encoding="utf-8")


def bars(svg: str) -> list[int]:
    """Bars of each coloured path: first all sources by length, then all by share."""
    paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [(path.get("d") or "").count("M") for path in paths if path.get("fill")]


def test_the_picture_is_one_and_the_same(tmp_path: Path, chat: Path) -> None:
    first = draw(chat)
    assert draw(chat) == first and "median 11" in first and "train-01 b.jsonl" in first and 'fill="#ffffff"' in first
    assert bars(first) == [1, 1, 2, 2], "all rows are 11 tokens; of two sources each has a row trained and one not"


@pytest.mark.parametrize(("lengths", "filled"), [([], []), ([7], [1]), ([3, 3, 3, 40_000], [2]), (list(range(1, 40)), [39])])
def test_pictures_of_any_lengths(tmp_path: Path, lengths: list[int], filled: list[int]) -> None:
    rows = [{"ids": [5] * length, "mask": [1] * length} for length in lengths]
    svg = draw(publish(tmp_path / "data", rows, "a<b>&.jsonl"))
    assert bars(svg)[:1] == filled and "NaN" not in svg and "inf" not in svg


def test_many_sources_share_the_last_colour(tmp_path: Path) -> None:
    rows = [{"ids": [5] * 4, "mask": [1] * 4, "source": at} for at in range(8)]
    svg = draw(publish(tmp_path / "data", rows, *(f"{at}.jsonl" for at in range(8))))
    assert "4 other sources" in svg and bars(svg) == [1] * 10
