"""merge against peft: the same bits, in the same model directory, whatever the layout of the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.artifact import Artifact
from stages.merge import STAGE
from tests.merge.adapters import Fill, gpt2, gpt_oss, llama, logits, mixtral, peft_model, publish_adapter, publish_base, stored_tensors
from tests.tiny import publish_artifact, run_stage, save_model, save_tokenizer

BF16 = torch.bfloat16
ALL: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear"}
PATTERNS: dict[str, Any] = {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6}, "alpha_pattern": {r"layers\.0\..*": 3}}
STACKS = ["experts.gate_up_proj", "experts.down_proj"]
FLAVOURS: dict[str, tuple[Fill, dict[str, Any]]] = {
    "lora": (llama(), ALL),
    "lora bf16": (llama(BF16), ALL),
    "rslora": (llama(), ALL | {"use_rslora": True}),
    "rslora bf16": (llama(BF16), ALL | {"use_rslora": True}),
    "dora": (llama(), ALL | {"use_dora": True}),
    "dora bf16": (llama(BF16), ALL | {"use_dora": True}),
    "patterns": (llama(BF16), ALL | PATTERNS),
    "many files": (llama(BF16, shard="60KB"), ALL),
    "norms kept": (llama(), {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm", "norm"]}),
    "whole block kept": (llama(), {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]}),
    "biases": (llama(attention_bias=True), ALL | {"bias": "all"}),
    "one layer": (llama(), ALL | {"target_modules": ["v_proj"], "layers_to_transform": [1]}),
    "untied ends": (llama(tie_word_embeddings=False), {"target_modules": ["embed_tokens", "lm_head", "o_proj"]}),
    "untied ends dora bf16": (llama(BF16, tie_word_embeddings=False), {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True}),
    "untied ends kept": (llama(tie_word_embeddings=False), {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    "token rows": (llama(tie_word_embeddings=False), {"target_modules": ["q_proj"], "trainable_token_indices": [7, 3, 200]}),
    "token rows of both ends": (
        llama(BF16, tie_word_embeddings=False),
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [7, 3], "lm_head": [5]}},
    ),
    "stacks": (gpt_oss(), {"target_modules": ["q_proj"], "target_parameters": STACKS} | {"rank_pattern": {"experts.down_proj": 3}}),
    "stacks rslora": (gpt_oss(), {"target_modules": [], "target_parameters": STACKS, "use_rslora": True}),
    "a matrix as a parameter": (llama(), {"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}),
    "the rank of such a matrix": (
        llama(),
        {"target_modules": [], "target_parameters": ["mlp.up_proj.weight"], "rank_pattern": {"up_proj.weight": 3}},
    ),
    "transposed": (gpt2(), {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "transposed dora bf16": (gpt2(BF16), {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True, "use_dora": True}),
}


def merge(workspace: Path, **options: Any) -> tuple[Artifact, dict[str, Any]]:
    outputs, metrics = run_stage(STAGE, workspace, {"merge": options})
    return outputs["merged"], metrics


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_bit_is_what_peft_merges(tmp_path: Path, flavour: str) -> None:
    base, settings = FLAVOURS[flavour]
    publish_base(tmp_path, base)
    publish_adapter(tmp_path, **settings)
    artifact, metrics = merge(tmp_path)
    merged = stored_tensors(artifact.path)
    expected = peft_model(tmp_path).merge_and_unload().state_dict()
    before = stored_tensors(tmp_path / "data" / "base")
    assert merged.keys() == before.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == before[name].dtype and tensor.equal(expected[name].to(tensor.dtype)), name
    assert metrics["changed"] == sum(not tensor.equal(before[name]) for name, tensor in merged.items()) > 0


TIED: dict[str, tuple[dict[str, Any], bool]] = {
    "embedding alone": ({"target_modules": ["embed_tokens", "q_proj"]}, False),
    "head alone": ({"target_modules": ["lm_head"]}, False),
    "both, apart": ({"target_modules": ["embed_tokens", "lm_head"]}, False),
    "both, together": ({"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}, True),
    "both, dora": ({"target_modules": ["embed_tokens", "lm_head"], "use_dora": True}, False),
    "embedding kept": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
    "both kept, together": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
    "both kept, apart": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "token rows": ({"target_modules": ["q_proj"], "trainable_token_indices": [7, 3, 200]}, True),
    "token rows alike": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [7], "lm_head": [7]}},
        True,
    ),
    "token rows apart": ({"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [7], "lm_head": [5, 3]}}, False),
    "token rows of the head": ({"target_modules": ["q_proj"], "trainable_token_indices": {"lm_head": [5, 3]}}, False),
    "neither": ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, True),
}


def rounded_once(workspace: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """peft's merge in float32. In bf16 it rounds the update of a stack before adding it, which loses small ones."""
    tensors: dict[str, torch.Tensor] = peft_model(workspace, dtype=torch.float32).merge_and_unload().to(dtype).state_dict()
    return tensors


def test_a_bf16_stack_is_rounded_once(tmp_path: Path) -> None:
    publish_base(tmp_path, gpt_oss(BF16))
    publish_adapter(tmp_path, target_modules=["q_proj"], target_parameters=STACKS)
    merged, expected = stored_tensors(merge(tmp_path)[0].path), rounded_once(tmp_path, BF16)
    assert all(tensor.equal(expected[name]) for name, tensor in merged.items())


@pytest.mark.parametrize("stacks", [{"target_parameters": STACKS}, {"modules_to_save": ["experts"]}], ids=["adapted", "trained whole"])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_stacks_that_are_stored_in_parts_are_merged_by_peft(tmp_path: Path, dtype: torch.dtype, stacks: dict[str, Any]) -> None:
    publish_base(tmp_path, mixtral(dtype))
    publish_adapter(tmp_path, target_modules=["q_proj"], **stacks)
    artifact, metrics = merge(tmp_path)
    before, merged = stored_tensors(tmp_path / "data" / "base"), stored_tensors(artifact.path)
    expected = rounded_once(tmp_path, dtype)
    assert merged.keys() == before.keys() and not expected.keys() >= merged.keys()
    loaded = AutoModelForCausalLM.from_pretrained(artifact.path).state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())
    assert metrics["changed"] == sum(not tensor.equal(before[name]) for name, tensor in merged.items()) > 0


def test_repeated_layers_have_changes_of_their_own(tmp_path: Path) -> None:
    """merge_and_unload is no reference here: to it, the copies are one layer."""
    publish_base(tmp_path, llama(BF16))
    publish_adapter(tmp_path, target_modules=["q_proj", "down_proj"], layer_replication=[[0, 2], [0, 1], [1, 2]])
    artifact, _ = merge(tmp_path)
    config = json.loads((artifact.path / "config.json").read_text())
    assert config["num_hidden_layers"] == 4 and artifact.content["tensors"] == 2 + 4 * 9
    before, merged = stored_tensors(tmp_path / "data" / "base"), stored_tensors(artifact.path)
    assert merged["model.layers.3.mlp.up_proj.weight"].equal(before["model.layers.1.mlp.up_proj.weight"])
    adapted = peft_model(tmp_path, dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(adapted), atol=0.05, rtol=0.05)  # the merged weights are bf16
    assert not merged["model.layers.2.mlp.down_proj.weight"].equal(merged["model.layers.0.mlp.down_proj.weight"])


RESIZED: dict[str, dict[str, Any]] = {
    "kept": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "token rows": {"trainable_token_indices": {"embed_tokens": [259, 260], "lm_head": [259, 260]}},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", RESIZED)
def test_a_larger_vocabulary(tmp_path: Path, case: str, tied: bool) -> None:
    publish_base(tmp_path, llama(tie_word_embeddings=tied))
    publish_adapter(tmp_path, rows=264, target_modules=["q_proj"], **RESIZED[case])
    artifact, _ = merge(tmp_path)
    assert json.loads((artifact.path / "config.json").read_text())["vocab_size"] == 264
    merged, adapted = AutoModelForCausalLM.from_pretrained(artifact.path), peft_model(tmp_path, rows=264)
    assert logits(merged).shape[-1] == 264
    torch.testing.assert_close(logits(merged), logits(adapted), atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("case", TIED)
def test_tied_embeddings_compute_what_the_adapted_model_computed(tmp_path: Path, case: str) -> None:
    """merge_and_unload is no reference here: it adds both ends' updates to the one shared tensor."""
    settings, stays_tied = TIED[case]
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **settings)
    artifact, _ = merge(tmp_path)
    assert ("lm_head.weight" not in stored_tensors(artifact.path)) == stays_tied
    assert json.loads((artifact.path / "config.json").read_text())["tie_word_embeddings"] == stays_tied
    merged, adapted = AutoModelForCausalLM.from_pretrained(artifact.path), peft_model(tmp_path)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "data" / "base")), atol=1e-3)


def test_the_directory_is_a_plain_model(tmp_path: Path) -> None:
    publish_base(tmp_path, llama(BF16))
    publish_adapter(tmp_path, **ALL)
    artifact, _ = merge(tmp_path)
    assert sorted(artifact.files) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert AutoModelForCausalLM.from_pretrained(artifact.path).dtype == BF16
    assert AutoTokenizer.from_pretrained(artifact.path).chat_template
    assert str(tmp_path) not in "".join(path.read_text() for path in artifact.path.glob("*.json"))
    assert artifact.content["dtype"] == "bfloat16" and artifact.content["kind"] == "adapter"


def test_the_configuration_says_the_dtype_the_weights_have(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        llama(BF16)(folder)
        path = folder / "config.json"
        config = {key: value for key, value in json.loads(path.read_text()).items() if key != "dtype"}
        path.write_text(json.dumps(config | {"torch_dtype": "float32"}))

    publish_base(tmp_path, fill)
    publish_adapter(tmp_path, **ALL)
    config = json.loads((merge(tmp_path)[0].path / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config


WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 1024}


def test_files_stay_under_the_limit_and_the_index_is_right(tmp_path: Path) -> None:
    publish_base(tmp_path, llama(**WIDE))
    publish_adapter(tmp_path, **ALL)
    artifact, metrics = merge(tmp_path, max_shard_size_mb=1)
    files = sorted(artifact.path.glob("model-*.safetensors"))
    assert len(files) == metrics["files"] > 2 and all(path.stat().st_size <= 1_000_000 for path in files)
    index = json.loads((artifact.path / "model.safetensors.index.json").read_text())
    tensors = stored_tensors(artifact.path)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["weight_map"].keys() == tensors.keys() and set(index["weight_map"].values()) == {path.name for path in files}
    reloaded = AutoModelForCausalLM.from_pretrained(artifact.path)
    assert all(tensors[name].equal(value) for name, value in reloaded.state_dict().items() if name in tensors)
    assert logits(reloaded).equal(logits(peft_model(tmp_path).merge_and_unload()))


def test_the_layout_of_the_base_does_not_matter(tmp_path: Path) -> None:
    digests = set()
    for shard in ("60KB", "1GB"):
        publish_base(tmp_path / shard, llama(shard=shard))
        publish_adapter(tmp_path / shard, **ALL)
        digests.add(merge(tmp_path / shard)[0].digest)
    assert len(digests) == 1


def full(folder: Path) -> None:
    save_model(folder, seed=3, **WIDE)
    save_tokenizer(folder)
    (folder / "log.csv").write_text("step,loss\n")


@pytest.mark.parametrize("megabytes", [1, 2000])
def test_a_fully_trained_model_passes_through(tmp_path: Path, megabytes: int) -> None:
    publish_base(tmp_path, llama())
    trained = publish_artifact(tmp_path / "data", "trained", full, kind="full")
    artifact, metrics = merge(tmp_path, max_shard_size_mb=megabytes)
    before, after = stored_tensors(trained.path), stored_tensors(artifact.path)
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)
    assert (metrics["files"] == 1) == (megabytes == 2000) and metrics["changed"] == 0
    assert "log.csv" not in artifact.files and {"tokenizer.json", "chat_template.jinja", "config.json"} <= artifact.files.keys()
    if megabytes == 2000:
        assert artifact.files["model.safetensors"] == trained.files["model.safetensors"]
    assert all(path.stat().st_size <= megabytes * 1_000_000 for path in artifact.path.glob("model*.safetensors"))
