"""Tokenizers: tokenizer.json and its companions damaged, cut, mixed up. Fetched, and then used to tokenize a row."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from stages.fetch import STAGE as FETCH
from stages.tokenize import STAGE as TOKENIZE
from tests.fetch.made import link
from tests.fuzz.damage import as_json, damaged, damaged_bytes, odd
from tests.fuzz.judge import Rows, Tried, judge
from tests.tiny import run_stage, save_model, save_tokenizer
from tests.tokenize.rows import chat

NAMES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json")
ROW = chat(("user", "q é"), ("assistant", "a"))


class Pickled:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/escaped-pickle"),)


PICKLE = pickle.dumps(Pickled())


def make_model(folder: Path) -> Path:
    """A model and a tokenizer that are right."""
    save_model(folder)
    save_tokenizer(folder)
    return folder


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """``count`` damaged tokenizers."""
    model = make_model(folder / "tokenizers-model")
    (folder / "tokenizers-rows").mkdir()
    (folder / "tokenizers-rows" / "rows.jsonl").write_text(as_json(ROW) + "\n")
    for number in range(count):
        workspace, other = folder / f"tokenizers-{number}", folder / f"tokenizers-{number}-made"
        other.mkdir()
        what = _break(model, other, rng)
        link(workspace, "base", model)
        link(workspace, "train-00", folder / "tokenizers-rows" / "rows.jsonl")
        link(workspace, "tokenizer", other)
        yield judge(f"tokenizers: {what}", "", lambda w=workspace, r=rng: use(w, r))  # type: ignore[misc]
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.rmtree(other)
    assert not Path("/tmp/escaped-pickle").exists()


def _break(model: Path, folder: Path, rng: Random) -> str:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(model / name, folder / name)
    way = rng.choice(["values", "values", "parts", "bytes", "bytes", "tokens", "config", "config", "files", "texts"])
    tokenizer, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if way == "values":
        tokenizer.write_text(json.dumps(damaged(json.loads(tokenizer.read_text()), rng, rng.randint(1, 3))))
    elif way == "parts":
        value = json.loads(tokenizer.read_text())
        part = rng.choice(list(value))
        value[part] = damaged(value[part], rng)
        tokenizer.write_text(json.dumps(value))
    elif way == "bytes":
        target = rng.choice([tokenizer, tokenizer, config])
        target.write_bytes(damaged_bytes(target.read_bytes(), rng))
    elif way == "tokens":
        tokenizer.write_text(json.dumps(_other_ids(json.loads(tokenizer.read_text()), rng)))
    elif way == "config":
        value = json.loads(config.read_text())
        names = (
            "eos_token",
            "pad_token",
            "bos_token",
            "unk_token",
            "chat_template",
            "tokenizer_class",
            "model_max_length",
            "auto_map",
            "added_tokens_decoder",
        )
        value[rng.choice(names)] = rng.choice([odd(rng), "<|no_such_token|>", {"content": odd(rng)}, {"AutoTokenizer": ["own.Tok", None]}])
        config.write_text(as_json(damaged(value, rng) if rng.random() < 0.3 else value))
    elif way == "files":
        _other_files(folder, rng)
    else:
        target = folder / rng.choice(NAMES)
        target.write_bytes(
            rng.choice([b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe\x00", b"[" * 3000, rng.randbytes(300), PICKLE, b'{"a": ' * 2000])
        )
    return way


def _other_ids(value: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Ids with holes, twice, negative, huge; tokens that nothing makes."""
    vocab = value["model"]["vocab"]
    for token in rng.sample(list(vocab), rng.randint(1, 20)):
        change = rng.choice(["gone", "twice", "huge", "hole"])
        if change == "gone":
            del vocab[token]
        else:
            vocab[token] = {"twice": 5, "huge": rng.choice([2**31, 2**32 - 1, 10**6]), "hole": 4000}[change]
    if rng.random() < 0.5:
        value["added_tokens"] = damaged(value["added_tokens"], rng, 2)
    if rng.random() < 0.3:
        value["model"]["merges"] = rng.choice([[["a", "b"]], [["a"]], ["a b c"], [7], "x", [["no", "such"]]])
    return value


def _other_files(folder: Path, rng: Random) -> None:
    gone = rng.choice(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.json"])
    (folder / gone).unlink()
    if rng.random() < 0.7:
        other = rng.choice(
            [
                "tokenizer.model",
                "vocab.json",
                "merges.txt",
                "spiece.model",
                "tokenizer.pkl",
                "tokenizer.bin",
                "tokenization_own.py",
                "chat_template.json",
            ]
        )
        (folder / other).write_bytes(
            rng.choice([PICKLE, b"{}", b"", rng.randbytes(50), b"from pathlib import Path\nPath('/tmp/escaped-pickle').touch()\n"])
        )


def use(workspace: Path, rng: Random) -> Rows:
    """Fetch the tokenizer and tokenize a row with it."""
    options: dict[str, Any] = {"tokenizer_config": "./tokenizer", "datasets": [{"path": "./rows.jsonl", "type": "chat_template"}]}
    run_stage(FETCH, workspace, options)
    _, metrics = run_stage(TOKENIZE, workspace, options)
    return Rows(metrics["rows"], metrics["rejected"])
