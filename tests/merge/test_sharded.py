"""regrow merge --sharded: what several processes saved in pieces is the model that they trained, and nothing in it is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import RegrowError
from pipeline.sharded import merge_sharded
from stages.merge.sharded import merge_sharded as write
from stages.merge.sharded.zero import ZeroShards
from tests.merge.adapters import llama, stored_tensors
from tests.merge.sharding import save_zero
from tests.tiny import save_model, save_tokenizer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``trained``, and two checkpoints of it that two processes of FSDP wrote: ``accelerate`` and ``plain``."""
    folder = tmp_path_factory.mktemp("fsdp")
    save_model(folder / "trained", seed=4)
    command = [sys.executable, "-m", "tests.merge.sharding", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def save_base(folder: Path, dtype: torch.dtype = torch.float32, **overrides: Any) -> Path:
    """The base with its tokenizer."""
    llama(dtype, **overrides)(folder)
    save_tokenizer(folder)
    return folder


def convert(shards: Path, root: Path, base: Path | None = None) -> Path:
    merge_sharded(shards, root / "out", base or save_base(root / "base"), write)
    return root / "out"


@pytest.mark.parametrize("name", ["accelerate", "accelerate/pytorch_model_fsdp_0", "plain"])
def test_what_fsdp_saved_is_the_trained_model(saved: Path, tmp_path: Path, name: str) -> None:
    assert len(list((saved / "plain").glob("*.distcp"))) == 2  # two processes, each its part
    trained, merged = stored_tensors(saved / "trained"), stored_tensors(convert(saved / name, tmp_path))
    assert merged.keys() == trained.keys() and all(tensor.equal(trained[key]) for key, tensor in merged.items())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").lm_head.weight.equal(trained["model.embed_tokens.weight"])
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_the_base_decides_the_dtype(saved: Path, tmp_path: Path) -> None:
    merged = stored_tensors(convert(saved / "accelerate", tmp_path, save_base(tmp_path / "base", torch.bfloat16)))
    trained = stored_tensors(saved / "trained")
    assert all(tensor.equal(trained[name].bfloat16()) for name, tensor in merged.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_command(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["merge", "--sharded", str(saved / "accelerate"), "--base", str(base)])
    assert done.exit_code == 0 and "Wrote accelerate-merged: 20 tensors in 1 file, float32.\n" in done.output
    assert (tmp_path / "accelerate-merged" / "model.safetensors").is_file() and not list(tmp_path.glob(".*"))
    for wrong in (["--output", "x"], ["--sharded", "x", "--force"], ["--base", "x"]):
        assert isinstance(CliRunner().invoke(app, ["merge", *wrong]).exception, RegrowError)


def test_base_and_tokenizer_of_the_project(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    rows = "datasets: [{path: rows.jsonl, type: chat_template}]\n"
    (tmp_path / "params.yaml").write_text(f"base_model: ./base\nlearning_rate: 0.1\n{rows}merge: {{max_shard_size_mb: 1}}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegrowError, match="regrow fetch"):
        merge_sharded(saved / "plain", None, None, write)
    llama()(tmp_path / "data" / "base")
    save_tokenizer(tmp_path / "data" / "tokenizer")
    merge_sharded(saved / "plain", None, None, write)
    assert (tmp_path / "plain-merged" / "tokenizer.json").is_file()


class Evil:
    """What a pickle can do: run a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def test_a_table_that_would_run_something_is_refused(saved: Path, tmp_path: Path) -> None:
    copytree(saved / "plain", tmp_path / "evil")
    table = pickle.loads((saved / "plain" / ".metadata").read_bytes())  # noqa: S301  # our own
    table.planner_data = Evil(tmp_path / "ran")
    (tmp_path / "evil" / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(RegrowError, match=r"asks for posix\.system"):
        convert(tmp_path / "evil", tmp_path)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_parts_of_a_checkpoint_stay_in_its_folder(saved: Path, tmp_path: Path) -> None:
    copytree(saved / "plain", tmp_path / "away")
    table = pickle.loads((saved / "plain" / ".metadata").read_bytes())  # noqa: S301  # our own
    for info in table.storage_data.values():
        info.relative_path = "../plain/" + info.relative_path
    (tmp_path / "away" / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(RegrowError, match=r"has no \.\./plain"):
        convert(tmp_path / "away", tmp_path)


def break_it(folder: Path, how: str) -> None:
    if how == "no table":
        (folder / ".metadata").unlink()
    elif how == "a broken table":
        (folder / ".metadata").write_bytes((folder / ".metadata").read_bytes()[:50])
    elif how == "a part gone":
        (folder / "__1_0.distcp").unlink()
    else:
        (folder / "__1_0.distcp").write_bytes((folder / "__1_0.distcp").read_bytes()[:1000])


BROKEN = {
    "no table": "not written to its end",
    "a broken table": "no table of a sharded checkpoint",
    "a part gone": "has no __1_0.distcp",
    "a part cut off": "cannot be read",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_checkpoint_that_is_not_whole(saved: Path, tmp_path: Path, how: str) -> None:
    copytree(saved / "plain", tmp_path / "broken")
    break_it(tmp_path / "broken", how)
    with pytest.raises(RegrowError, match=BROKEN[how]):
        convert(tmp_path / "broken", tmp_path)
    assert not (tmp_path / "out").exists()


def test_another_base(saved: Path, tmp_path: Path) -> None:
    others: list[tuple[dict[str, Any], str]] = [
        ({"num_hidden_layers": 3}, "has no model.layers.2"),
        ({"num_hidden_layers": 1}, "holds model.layers.1"),
        ({"intermediate_size": 96}, "and the base"),
        ({"attention_bias": True}, "has no model.layers.0.self_attn.k_proj.bias"),
    ]
    for number, (overrides, expected) in enumerate(others):
        with pytest.raises(RegrowError, match=expected):
            convert(saved / "plain", tmp_path, save_base(tmp_path / str(number), **overrides))


def test_a_folder_that_is_there_stays(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(RegrowError, match="exists already"):
        convert(saved / "plain", tmp_path)


@pytest.mark.parametrize(
    ("file", "expected"),
    [("model.safetensors", "holds no sharded checkpoint"), ("pytorch_model_fsdp_0_rank0.bin", "one pickle for each process")],
)
def test_no_sharded_checkpoint(tmp_path: Path, file: str, expected: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / file).touch()
    with pytest.raises(RegrowError, match=expected):
        convert(tmp_path / "shards", tmp_path)
    with pytest.raises(RegrowError, match="not a folder"):
        convert(tmp_path / "none", tmp_path, tmp_path / "base")


def test_an_adapter_is_merged_otherwise(tmp_path: Path) -> None:
    tensors = {"model": {"base_model.model.model.norm.lora_A.default.weight": torch.ones(2)}}
    save(tensors, checkpoint_id=tmp_path / "shards", no_dist=True)
    with pytest.raises(RegrowError, match="of an adapter"):
        convert(tmp_path / "shards", tmp_path)


def weights(root: Path, **overrides: Any) -> dict[str, Tensor]:
    save_model(root / "trained", seed=4, **overrides)
    return load_file(root / "trained" / "model.safetensors")


def two_groups(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """As optimizers have them: with weight decay, and without."""
    return [{name: tensor for name, tensor in tensors.items() if (tensor.dim() > 1) == matrices} for matrices in (True, False)]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_zero_saved_is_the_trained_model(tmp_path: Path, stage: int) -> None:
    trained = weights(tmp_path)
    frozen = {name: tensor.bfloat16() for name, tensor in trained.items() if "layers.0" in name}
    groups = two_groups({name: tensor for name, tensor in trained.items() if name not in frozen})
    save_zero(tmp_path / "zero", stage, groups, 3, frozen, {"lm_head.weight": "model.embed_tokens.weight"})
    for shards in (tmp_path / "zero", tmp_path / "zero" / "global_step7"):
        merged = stored_tensors(convert(shards, tmp_path, None if shards.name == "zero" else tmp_path / "base"))
        assert merged.keys() == trained.keys()
        assert all(tensor.equal(frozen.get(name, trained[name]).float()) for name, tensor in merged.items())
        (tmp_path / "out").rename(tmp_path / f"first-{shards.name}")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, 3]),
    st.integers(1, 4),
    st.lists(st.lists(st.lists(st.integers(1, 5), max_size=2), min_size=1, max_size=4), min_size=1, max_size=2),
)
def test_zero_of_any_shapes_and_processes(tmp_path_factory: pytest.TempPathFactory, stage: int, processes: int, shapes: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("zero")
    groups = [{f"{g}.{i}": torch.randn(shape) for i, shape in enumerate(group)} for g, group in enumerate(shapes)]
    save_zero(folder, stage, groups, processes)
    found = ZeroShards(folder / "global_step7")
    expected = {name: tensor for group in groups for name, tensor in group.items()}
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert all(found.read(name).equal(tensor) for name, tensor in expected.items())


def test_a_head_of_its_own_and_added_tokens(tmp_path: Path) -> None:
    """The base has one tensor for both ends; the checkpoint two, of five more rows."""
    trained = weights(tmp_path, tie_word_embeddings=False, vocab_size=264)
    save_zero(tmp_path / "zero", 3, two_groups(trained), 2)
    out = convert(tmp_path / "zero", tmp_path)
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == 264 and config["tie_word_embeddings"] is False
    loaded = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert loaded.keys() == trained.keys() and all(tensor.equal(trained[name]) for name, tensor in loaded.items())


@pytest.fixture
def foreign() -> Iterator[Any]:
    """A class of a package that is not installed when the checkpoint is read."""
    module = types.ModuleType("deepspeed_like")
    module.Scaler = type("Scaler", (), {"__module__": "deepspeed_like", "__qualname__": "Scaler"})  # type: ignore[attr-defined]
    sys.modules["deepspeed_like"] = module
    scaler = module.Scaler()
    scaler.scale = 2.0
    yield scaler
    sys.modules.pop("deepspeed_like", None)


def add(root: Path, **entries: Any) -> None:
    """Put more into the state of the first process."""
    (path, *_) = sorted((root / "zero" / "global_step7").glob("*_optim_states.pt"))
    value = torch.load(path)
    value["optimizer_state_dict"] |= entries
    torch.save(value, path)


def test_objects_of_foreign_classes_are_passed_over(tmp_path: Path, foreign: Any) -> None:
    trained = weights(tmp_path)
    save_zero(tmp_path / "zero", 2, two_groups(trained), 2)
    add(tmp_path, loss_scaler=foreign)
    sys.modules.pop("deepspeed_like")
    assert stored_tensors(convert(tmp_path / "zero", tmp_path)).keys() == trained.keys()


def test_a_pickle_of_zero_runs_nothing(tmp_path: Path) -> None:
    save_zero(tmp_path / "zero", 2, two_groups(weights(tmp_path)), 2)
    add(tmp_path, loss_scaler=Evil(tmp_path / "ran"))
    with pytest.raises(RegrowError, match="cannot be read as a file of a ZeRO checkpoint"):
        convert(tmp_path / "zero", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_zero_that_is_not_whole(tmp_path: Path) -> None:
    save_zero(tmp_path / "zero", 3, two_groups(weights(tmp_path)), 3)
    step = tmp_path / "zero" / "global_step7"
    (step / "zero_pp_rank_2_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(RegrowError, match=r"2 files .* and 3 processes"):
        convert(tmp_path / "zero", tmp_path)
    (step / "zero_pp_rank_1_mp_rank_01_optim_states.pt").write_bytes(b"")
    with pytest.raises(RegrowError, match="split across processes in other ways"):
        convert(tmp_path / "zero", tmp_path, tmp_path / "base")


def test_parameters_that_do_not_fill_the_files(tmp_path: Path) -> None:
    trained = weights(tmp_path)
    save_zero(tmp_path / "zero", 2, [trained], 2)
    add(tmp_path, single_partition_of_fp32_groups=[torch.zeros(10)])
    with pytest.raises(RegrowError, match="its files hold"):
        convert(tmp_path / "zero", tmp_path)


def test_another_layout(tmp_path: Path) -> None:
    save_zero(tmp_path / "zero", 2, two_groups(weights(tmp_path)), 2)
    add(tmp_path, single_partition_of_fp32_groups=None)
    with pytest.raises(RegrowError, match="laid out otherwise"):
        convert(tmp_path / "zero", tmp_path)


def test_a_stage_that_is_not_known(tmp_path: Path) -> None:
    save_zero(tmp_path / "zero", 2, two_groups(weights(tmp_path)), 2)
    add(tmp_path, zero_stage=4)
    with pytest.raises(RegrowError, match="ZeRO stage 4"):
        convert(tmp_path / "zero", tmp_path)
    buffer = io.BytesIO()
    torch.save([1], buffer)
    (tmp_path / "zero" / "global_step7" / "mp_rank_00_model_states.pt").write_bytes(buffer.getvalue())
    with pytest.raises(RegrowError, match="no file of a ZeRO checkpoint"):
        convert(tmp_path / "zero", tmp_path, tmp_path / "base")
