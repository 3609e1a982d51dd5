"""Base models and adapters: safetensors with damaged headers, configs that do not fit, indexes that point elsewhere, pickles."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.adapter_folder import adapter_identity
from pipeline.errors import RegrowError
from pipeline.options.recipe import load_recipe
from pipeline.project import Project
from stages.fetch import STAGE as FETCH
from stages.merge import STAGE as MERGE
from tests.fetch.made import link
from tests.fuzz.damage import as_json, damaged, damaged_bytes, odd
from tests.fuzz.judge import Rows, Tried, judge
from tests.fuzz.tokenizers import PICKLE, make_model
from tests.merge.adapters import llama, publish_adapter, publish_base
from tests.tiny import publish_artifact, run_stage


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """``count`` damaged models and adapters, half and half."""
    model = make_model(folder / "models-model")
    (folder / "models-rows.jsonl").write_text('{"text": "a"}\n')
    made = folder / "models-adapted"
    publish_base(made, llama())
    publish_adapter(made, r=4, target_modules=["q_proj"])
    for number in range(count):
        workspace, other = folder / f"models-{number}", folder / f"models-{number}-made"
        if number % 2:
            what = _adapter(made, workspace, rng)
            yield judge(f"adapters: {what}", "", lambda w=workspace: merge(w))  # type: ignore[misc]
        else:
            shutil.copytree(model, other)
            what = _break(other, rng)
            link(workspace, "base", other)
            link(workspace, "train-00", folder / "models-rows.jsonl")
            yield judge(f"base models: {what}", "", lambda w=workspace: fetch(w))  # type: ignore[misc]
        for place in (workspace, other):
            shutil.rmtree(place, ignore_errors=True)
    assert not Path("/tmp/escaped-pickle").exists()


def fetch(workspace: Path) -> Rows:
    """Fetch a base model."""
    run_stage(FETCH, workspace, {"datasets": [{"path": "./models-rows.jsonl", "type": "completion"}]})
    return Rows()


def merge(workspace: Path) -> Rows:
    """Check the adapter as one to go on from, then merge it."""
    text = (
        "base_model: owner/name\ndatasets: [{path: owner/rows, type: completion}]\nlearning_rate: 1\nadapter: lora\nlora_model_dir: other\n"
    )
    (workspace / "params.yaml").write_text(text)
    with suppress(RegrowError):  # merge looks at it all the same
        adapter_identity(Project(workspace), load_recipe(workspace / "params.yaml"))
    run_stage(MERGE, workspace)
    return Rows()


def _break(folder: Path, rng: Random) -> str:
    way = rng.choice(["config", "config", "weights", "weights", "header", "header", "tensors", "index", "pickles", "files"])
    config, weights = folder / "config.json", folder / "model.safetensors"
    if way == "config":
        _damage_json(config, rng)
    elif way == "weights":
        weights.write_bytes(damaged_bytes(weights.read_bytes(), rng))
    elif way == "header":
        _damage_header(weights, rng)
    elif way == "tensors":
        _damage_tensors(weights, rng)
    elif way == "index":
        _index(folder, rng)
    elif way == "pickles":
        _pickles(folder, weights, "pytorch_model.bin", rng)
    else:
        target = folder / rng.choice(["config.json", "model.safetensors", "generation_config.json"])
        target.unlink() if rng.random() < 0.3 else target.write_bytes(
            rng.choice([b"", b"{}", b"[]", b"7", b"\xff", PICKLE, b"[" * 3000, rng.randbytes(200)])
        )
    return way


def _adapter(made: Path, workspace: Path, rng: Random) -> str:
    shutil.copytree(made / "data", workspace / "data", ignore=shutil.ignore_patterns("trained"))
    other = workspace / "other"
    shutil.copytree(made / "data" / "trained", other)
    content = json.loads((other / "manifest.json").read_text())["content"]
    (other / "manifest.json").unlink()
    config, weights = other / "adapter_config.json", other / "adapter_model.safetensors"
    way = rng.choice(["config", "config", "weights", "header", "tensors", "pickles", "files"])
    if way == "config":
        _damage_json(
            config, rng, ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "peft_type", "use_dora", "use_rslora")
        )
    elif way == "weights":
        weights.write_bytes(damaged_bytes(weights.read_bytes(), rng))
    elif way == "header":
        _damage_header(weights, rng)
    elif way == "tensors":
        _damage_tensors(weights, rng)
    elif way == "pickles":
        _pickles(other, weights, "adapter_model.bin", rng)
    else:
        target = rng.choice([config, weights])
        target.unlink() if rng.random() < 0.3 else target.write_bytes(rng.choice([b"", b"{}", b"[]", b"7", b"\xff", PICKLE, b"[" * 3000]))

    def fill(folder: Path) -> None:
        shutil.copytree(other, folder, dirs_exist_ok=True)

    publish_artifact(workspace / "data", "trained", fill, **content)
    return way


def _damage_json(path: Path, rng: Random, names: tuple[str, ...] = ()) -> None:
    value = json.loads(path.read_text())
    if rng.random() < 0.25:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return
    if names and rng.random() < 0.6:
        value[rng.choice(names)] = rng.choice([odd(rng), {"(": 4}, {"q_proj": "x"}, {"(a+)+$": 4}, 0, -1, 10**9, "4"])
    else:
        value[rng.choice(list(value))] = odd(rng) if rng.random() < 0.7 else rng.choice([0, -1, 3, 10**9])
    path.write_text(as_json(damaged(value, rng) if rng.random() < 0.3 else value))


def _damage_header(path: Path, rng: Random) -> None:
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    start, end = entry["data_offsets"]
    change = rng.randrange(10)
    entry["data_offsets"] = [[start, end], [end, start], [start, 2**63], [-1, end], [start + 4, end], [0, end], [start, end + 4]][
        min(change, 6)
    ]
    if change == 7:
        entry["dtype"] = rng.choice(["F16", "I64", "F8_E4M3", "NONE", 7, "BOOL", None])
    if change == 8:
        entry["shape"] = rng.choice([[2**40, 2**40], [-1, 4], [], [0], "x", [1] * 100, [entry["shape"][0]]])
    if change == 9:
        header[rng.choice(["../../escaped", "x" * 5000, "", "\x00", "__metadata__"])] = header.pop(name)
    text = json.dumps(header).encode()
    length = rng.choice([len(text)] * 8 + [2**64 - 1, 0, len(text) + 10**6, len(text) - 3])
    path.write_bytes(struct.pack("<Q", length) + text + (body if rng.random() < 0.9 else body[: len(body) // 2]))


def _damage_tensors(path: Path, rng: Random) -> None:
    tensors = load_file(path)
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    change = rng.randrange(8)
    if change == 0:
        del tensors[name]
    elif change == 1:
        tensors[name + rng.choice([".x", "", " "])] = tensors.pop(name)
        tensors["extra.weight"] = torch.zeros(3)
    elif change == 2:
        tensors[name] = torch.full_like(tensor, rng.choice([float("nan"), float("inf")]))
    elif change == 3:
        tensors[name] = tensor.to(
            rng.choice([torch.int8, torch.bool, torch.int64, torch.float64, torch.complex64, torch.bfloat16, torch.float8_e4m3fn])
        )
    elif change == 4:
        tensors[name] = tensor.reshape(-1)
    elif change == 5:
        tensors[name] = tensor[:0]
    elif change == 6:
        tensors[name] = torch.zeros([*tensor.shape, 1])
    else:
        tensors = {}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata={"format": rng.choice(["pt", "tf", "x"])})


def _index(folder: Path, rng: Random) -> None:
    names = [
        "../../../../etc/passwd",
        "/etc/passwd",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "",
        ".",
        "\x00",
        7,
        None,
        "config.json",
    ]
    names += ["../models-model/model.safetensors", "x" * 300]
    tensors = [key for key in load_file(folder / "model.safetensors")]
    mapping: Any = {key: rng.choice(names) for key in rng.sample(tensors, rng.randint(1, len(tensors)))}
    if rng.random() < 0.3:
        mapping = odd(rng)
    (folder / "model.safetensors.index.json").write_text(
        as_json({"metadata": {}, "weight_map": mapping} if rng.random() < 0.9 else odd(rng))
    )
    if rng.random() < 0.5:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def _pickles(folder: Path, weights: Path, name: str, rng: Random) -> None:
    """Weights as a pickle; in half of them the safetensors too are one by another name."""
    weights.unlink()
    (folder / rng.choice([name, "model.pt", "training_args.bin"])).write_bytes(PICKLE)
    if rng.random() < 0.5:
        weights.write_bytes(PICKLE)
