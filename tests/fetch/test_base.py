"""The base model: safetensors copied as they are, a GGUF file converted once, nothing else accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import digest_file
from pipeline.errors import MissingExtra, RegrowError
from tests.fetch.made import fetch, link, make_gguf, write


def project(tmp_path: Path, base: Path) -> Path:
    """A project with this base model, folder or file, and one dataset."""
    folder = tmp_path / "project"
    link(folder, "base", base)
    link(folder, "train-00", write(tmp_path / "rows.jsonl"))
    return folder


def changed(tmp_path: Path, model_folder: Path, files: dict[str, bytes | None]) -> Path:
    """A copy of the model folder with files replaced or, with None, removed."""
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    for name, data in files.items():
        (copy / name).unlink(missing_ok=True)
        if data is not None:
            (copy / name).write_bytes(data)
    return copy


def test_weights_and_configs_are_copied_as_they_are(tmp_path: Path, model_folder: Path) -> None:
    artifacts, _, _ = fetch(project(tmp_path, changed(tmp_path, model_folder, {"optimizer.bin": b"x"})))
    base = artifacts["base"]
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        assert base.files[name]["sha256"] == digest_file(model_folder / name)
    assert len(base.files) == 3
    assert base.content == {"model_type": "llama", "revision": None, "source": None}, "a path on this disk is no fact"


def test_pickles_are_refused(tmp_path: Path, model_folder: Path) -> None:
    base = changed(tmp_path, model_folder, {"model.safetensors": None, "pytorch_model.bin": b"x"})
    with pytest.raises(RegrowError, match=r"base_model '\./base'.*pickle.*pytorch_model\.bin.*safetensors is needed"):
        fetch(project(tmp_path, base))


def test_what_is_missing_is_named(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(RegrowError, match=r"has no config\.json \(there are .*model\.safetensors"):
        fetch(project(tmp_path, changed(tmp_path, model_folder, {"config.json": None})))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"},
            r"model\.safetensors is not a safetensors file.*\n.*git lfs",
        ),
        ({"model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-00002.safetensors"}}).encode()}, r"has no model-00002"),
        ({"config.json": b'{"model_type": "no_such_kind"}'}, r"its config\.json cannot be opened: .*no_such_kind"),
        ({"tokenizer.json": None}, r"has no tokenizer\.json.*\n.*tokenizer_config"),
        ({"tokenizer.json": b"{}"}, r"its tokenizer cannot be opened"),
    ],
)
def test_a_damaged_model_is_refused_here_and_not_at_training(
    tmp_path: Path, model_folder: Path, files: dict[str, bytes | None], message: str
) -> None:
    with pytest.raises(RegrowError, match=message):
        fetch(project(tmp_path, changed(tmp_path, model_folder, files)))


def test_a_gguf_file_becomes_the_model_it_was_made_from(tmp_path: Path, gguf_file: Path, tiny_llama: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    artifacts, _, _ = fetch(project(tmp_path, gguf_file), base_model="./tiny.gguf")
    model = AutoModelForCausalLM.from_pretrained(artifacts["base"].path)
    for name, value in tiny_llama.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sorted(artifacts["base"].files) == ["config.json", "generation_config.json", "model.safetensors"]
    assert model.config.max_position_embeddings == 384
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, 2, 0)
    assert model.generation_config.eos_token_id == 2
    assert "quantization_config" not in json.loads((artifacts["base"].path / "config.json").read_text())


def test_quantized_tensors_give_the_logits_of_transformers_own_loader(tmp_path: Path, tiny_llama: Any) -> None:
    """It fails when transformers changes what it makes of a GGUF file, or when our shorter way leaves something out."""
    import torch
    from transformers import AutoModelForCausalLM

    quantized = ("token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight")
    file = make_gguf(tmp_path / "tiny.gguf", tiny_llama, quantized=quantized)
    artifacts, _, _ = fetch(project(tmp_path, file), base_model="./tiny.gguf")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(artifacts["base"].path)(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)(ids).logits
        original = tiny_llama(ids).logits
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, original)


def test_a_gguf_file_converts_to_the_same_bytes_every_time(tmp_path: Path, gguf_file: Path) -> None:
    runs = [fetch(project(tmp_path / place, gguf_file), base_model="./tiny.gguf")[0] for place in ("a", "b/c")]
    assert [artifact.digest for artifact in runs[0].values()] == [artifact.digest for artifact in runs[1].values()]
    for artifact in runs[1].values():
        for file in artifact.path.rglob("*"):
            assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file


def test_a_cut_or_incomplete_gguf_file_is_refused(tmp_path: Path, gguf_file: Path, tiny_llama: Any) -> None:
    cut = tmp_path / "cut" / "tiny.gguf"
    cut.parent.mkdir()
    cut.write_bytes(gguf_file.read_bytes()[:-2000])
    with pytest.raises(RegrowError, match=r"base_model '\./tiny\.gguf' cannot be read as GGUF"):
        fetch(project(tmp_path / "a", cut), base_model="./tiny.gguf")
    cut.write_bytes(b"no gguf at all, but long enough to be read")
    with pytest.raises(RegrowError, match=r"base_model '\./tiny\.gguf'.*cannot be read"):
        fetch(project(tmp_path / "b", cut), base_model="./tiny.gguf")


def test_a_gguf_file_without_the_library_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.fetch.model_files.find_spec", lambda name: None)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(MissingExtra, match=r"base_model .* needs the package 'gguf'[\s\S]*regrow\[gguf\]"):
        fetch(project(tmp_path, file))


def _prefixed(folder: Path) -> bytes:
    from safetensors.torch import load_file, save

    return save({f"transformer.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()})


def _foreign(_: Path) -> bytes:
    import torch
    from safetensors.torch import save

    return save({"foreign": torch.zeros(2)})


@pytest.mark.parametrize(("weights", "foreign"), [(_prefixed, "transformer.model"), (_foreign, "foreign")])
def test_weights_of_other_names_are_refused(tmp_path: Path, model_folder: Path, weights: Callable[[Path], bytes], foreign: str) -> None:
    """transformers would start from random weights."""
    base = changed(tmp_path, model_folder, {"model.safetensors": weights(model_folder)})
    with pytest.raises(RegrowError, match=rf"base_model '\./base': .*LlamaForCausalLM.* 21 missing \(.*without a place in it \({foreign}"):
        fetch(project(tmp_path, base))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, r"GPT2LMHeadModel.*missing \(.*transformer\.h\.0"),
        ({"intermediate_size": 96}, r"6 of another shape \(model\.layers\.0\.mlp\.down_proj\.weight \[64, 128\] for \[64, 96\]"),
        ({"num_hidden_layers": 3}, r"9 missing \(model\.layers\.2"),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path: Path, model_folder: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((model_folder / "config.json").read_text()) | change
    with pytest.raises(RegrowError, match=message):
        fetch(project(tmp_path, changed(tmp_path, model_folder, {"config.json": json.dumps(config).encode()})))


def test_names_that_transformers_completes_are_accepted(tmp_path: Path, model_folder: Path) -> None:
    """GPT-2's own files leave out the prefix of the base model."""
    from safetensors.torch import load_file, save

    tensors = load_file(model_folder / "model.safetensors")
    bare = save({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, metadata={"format": "pt"})
    fetch(project(tmp_path, changed(tmp_path, model_folder, {"model.safetensors": bare})))
