"""Levers that save memory change nothing that is learnt."""

from __future__ import annotations

import gc
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, GraniteForCausalLM, JetMoeConfig, JetMoeForCausalLM

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from stages.train.loss import LossInPieces, token_loss
from stages.train.model.build import build_model
from stages.train.model.compilation import compile_layers
from stages.train.model.offload import Away, Store, choose_place, keep_activations
from stages.train.model.tiling import tile_mlps
from tests.tiny import publish_artifact
from tests.train.workspace import FULL, LORA, Heard, SignalAt, finished, read_log, train

PLAIN = FULL | {"max_steps": 3}
RECOMPUTED = PLAIN | {"gradient_checkpointing": True}


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def weights(files: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the files that hold what was learnt."""
    return {name: files[name] for name in ("model.safetensors", "log.csv")}


@pytest.mark.shows("gradient_checkpointing", "gradient_checkpointing_kwargs", "tiled_mlp", "tiled_mlp_num_shards")
@pytest.mark.shows("chunked_cross_entropy", "chunked_cross_entropy_num_chunks")
@pytest.mark.parametrize(
    "lever",
    [
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"chunked_cross_entropy": True},
        {"chunked_cross_entropy": True, "chunked_cross_entropy_num_chunks": 3, "gradient_checkpointing": True},
        {"tiled_mlp": True, "tiled_mlp_num_shards": 3},
    ],
)
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_lever_changes_nothing_that_is_learnt(published: Path, workspace: Path, lever: dict[str, Any], kind: str) -> None:
    options = PLAIN | ({} if kind == "full" else LORA | {"lora_dropout": 0.0, "max_steps": 3})
    expected = finished(published, options).log
    found = read_log(train(workspace, options | lever)[0])
    for line, other in zip(found, expected, strict=True):
        assert (line["loss"], line["grad_norm"]) == pytest.approx((other["loss"], other["grad_norm"]), rel=1e-4)


def test_weights_are_looked_for_once_in_a_forward_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not at each of the thousands of tensors that a large model keeps."""
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(9)))
    keeping = keep_activations(view(activation_offloading="disk"), model, tmp_path / "activations")
    looked: list[str] = []
    real = torch.nn.Module.parameters
    monkeypatch.setattr(torch.nn.Module, "parameters", lambda self, *rest: looked.append("once") or real(self, *rest))
    with keeping():
        kept = model(torch.ones(32, 64)).exp()
    assert looked == ["once"]
    torch.autograd.backward(kept.sum())


@pytest.mark.parametrize("layers", [[], ["use_reentrant"]])
def test_settings_of_recomputation_reach_torch(monkeypatch: pytest.MonkeyPatch, workspace: Path, layers: list[str]) -> None:
    used: list[bool] = []
    real = torch.utils.checkpoint.checkpoint

    def watched(*arguments: Any, use_reentrant: bool, **rest: Any) -> Any:
        used.append(use_reentrant)
        return real(*arguments, use_reentrant=use_reentrant, **rest)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", watched)
    kwargs = {"gradient_checkpointing_kwargs": dict.fromkeys(layers, True)} if layers else {}
    train(workspace, RECOMPUTED | {"max_steps": 1} | kwargs)
    assert set(used) == {bool(layers)}


@pytest.mark.shows("activation_offloading")
@pytest.mark.parametrize("lever", [{"activation_offloading": "disk"}, {"gradient_checkpointing": "offload_disk"}])
def test_activations_on_disk_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, published: Path, workspace: Path, lever: dict[str, Any]
) -> None:
    written: list[int] = []
    real = Store._write

    def watched(self: Store, tensor: torch.Tensor, folder: Path) -> Away:
        written.append(tensor.numel())
        return real(self, tensor, folder)

    monkeypatch.setattr(Store, "_write", watched)
    trained, _ = train(workspace, RECOMPUTED | lever)
    assert weights(trained.files) == weights(finished(published, RECOMPUTED).files)
    assert len(written) >= 3 * 2 * 2, "the input of each of two layers, in each of two micro-batches of three steps"
    gc.collect()
    assert list((workspace / ".regrow" / "train" / "activations").rglob("*.bin")) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_taken_away_comes_back_to_the_bit(tmp_path: Path, dtype: torch.dtype, on_disk: bool) -> None:
    model = torch.nn.Linear(64, 64)
    store = Store(model, tmp_path if on_disk else None, pinned=False)
    tensor = torch.randn(50, 3, 64).mul(100).to(dtype).transpose(0, 2)
    kept = store.pack(tensor)
    assert isinstance(kept, Away) and len(list(tmp_path.iterdir())) == on_disk
    assert torch.equal(store.unpack(kept), tensor) and torch.equal(store.unpack(kept), tensor)
    del kept
    assert list(tmp_path.iterdir()) == []
    weight, few = model.weight.detach(), torch.ones(3)
    assert store.pack(weight) is weight and store.pack(few) is few


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "memory"),
        ({"gradient_checkpointing": True}, "memory"),
        ({"activation_offloading": True}, "pinned"),
        ({"gradient_checkpointing": "offload"}, "pinned"),
        ({"activation_offloading": "legacy"}, "plain"),
        ({"gradient_checkpointing": "offload_disk"}, "disk"),
    ],
)
def test_where_activations_wait(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], place: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_place(view(**options)) == place
    monkeypatch.undo()
    if place in ("pinned", "plain"):
        with pytest.raises(RegrowError, match=r"moves activations from a GPU to RAM.*\n.*disk works here too"):
            choose_place(view(**options))


def test_what_a_killed_run_left_on_disk_goes(tmp_path: Path) -> None:
    folder = tmp_path / "activations"
    folder.mkdir()
    (folder / "7.bin").touch()
    keep_activations(view(activation_offloading="disk", gradient_checkpointing=True), torch.nn.Linear(1, 1), folder)
    assert list(folder.iterdir()) == []


def test_never_are_all_logits_there_at_once(published: Path) -> None:
    """Gradients are those of all logits; the largest tensor that is as wide as the vocabulary has one piece's rows."""
    ids = torch.randint(3, 259, (2, 20))
    labels, gradients = torch.where(torch.rand(2, 20) < 0.7, ids, -100), []
    for pieces in (None, 5):
        model = build_model(published / "data" / "base", view()).train()
        loss = token_loss if pieces is None else LossInPieces(model, pieces)
        rows: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(_note, rows), _same):
            outputs = model(input_ids=ids)
            assert outputs.logits.shape[-1] == (259 if pieces is None else 64)
            value = loss(outputs, labels, 11)
        value.backward()  # type: ignore[no-untyped-call]
        gradients.append([value, *(weight.grad for weight in model.parameters())])
        assert bool(rows) == (pieces is None)
        model.eval()
        assert model(input_ids=ids).logits.shape == (2, 20, 259)
        assert torch.equal(loss(model(input_ids=ids), labels, 11), token_loss(model(input_ids=ids), labels, 11))
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def _note(rows: list[int], tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim == 2 and tensor.shape[1] == 259:
        rows.append(len(tensor))
    return tensor


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


SIZES: dict[str, Any] = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 2}


def test_logits_that_are_capped_cannot_be_had_in_pieces() -> None:
    """Small random weights: no logit is near the cap yet."""
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, num_attention_heads=4, head_dim=8, final_logit_softcapping=30.0))
    with pytest.raises(RegrowError, match="Gemma2ForCausalLM does more to its logits than its output head"):
        LossInPieces(model, 4)


def test_nothing_is_compiled_to_look_at_the_head() -> None:
    """A graph for three tokens would take as long as one for a bin."""
    from torch._dynamo.utils import counters

    model = GraniteForCausalLM(GraniteForCausalLM.config_class(**SIZES, num_attention_heads=4, pad_token_id=0, eos_token_id=2))
    compile_layers(model, view(torch_compile=True, torch_compile_backend="eager"))
    counters.clear()
    LossInPieces(model, 4)
    assert not counters["stats"]


@pytest.mark.parametrize("make", [GraniteForCausalLM, CohereForCausalLM])
def test_logits_that_are_scaled_can_be_had_in_pieces(make: Any) -> None:
    scales = {"logits_scaling": 6.0} if make is GraniteForCausalLM else {"logit_scale": 0.1}
    model = make(make.config_class(**SIZES, num_attention_heads=4, pad_token_id=0, eos_token_id=2, **scales)).train()
    ids = torch.arange(20)[None]
    expected = token_loss(model(input_ids=ids), ids, 19)
    torch.testing.assert_close(LossInPieces(model, 4)(model(input_ids=ids), ids, 19), expected)


def test_recomputation_that_an_architecture_has_not_is_refused(workspace: Path) -> None:
    model = JetMoeForCausalLM(JetMoeConfig(**SIZES, kv_channels=8, num_local_experts=2, num_experts_per_tok=1))
    publish_artifact(workspace / "data", "base", model.save_pretrained)
    with pytest.raises(RegrowError, match="gradient_checkpointing: transformers cannot recompute the activations of JetMoeForCausalLM"):
        train(workspace, RECOMPUTED)


def test_an_mlp_sees_a_piece_at_a_time(published: Path) -> None:
    model = build_model(published / "data" / "base", view())
    seen: list[int] = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda module, given, output: seen.append(output.shape[1]))
    tile_mlps(model, None)
    model(input_ids=torch.arange(150)[None])
    assert seen == [50, 50, 50], "one piece for as many tokens as the model is wide: 64"
    with pytest.raises(RegrowError, match="Linear has no MLP layers"):
        tile_mlps(torch.nn.Linear(1, 1), 2)


@pytest.mark.parametrize(
    "options",
    [
        FULL
        | {"gradient_checkpointing": "offload_disk", "chunked_cross_entropy": True, "tiled_mlp": True, "tiled_mlp_num_shards": 2}
        | {"bf16": "full"},
        LORA | {"bf16": True, "tiled_mlp": True, "tiled_mlp_num_shards": 2, "chunked_cross_entropy": True},
    ],
    ids=["full", "lora"],
)
def test_a_run_that_was_stopped_with_levers_ends_with_the_same_bytes(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    """Dropout in pieces draws the same numbers again in the backward pass, and after a resume."""
    expected = finished(published, options).files
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(3, signal.SIGTERM))
    assert train(workspace, options, progress=Heard())[0].files == expected


def test_levers_under_autocast(workspace: Path) -> None:
    options = PLAIN | {"bf16": True}
    plain = read_log(train(workspace, options, progress=Heard())[0])
    levers = {"chunked_cross_entropy": True, "tiled_mlp": True, "tiled_mlp_num_shards": 2}
    found = read_log(train(workspace, options | levers, progress=Heard())[0])
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in plain], rel=1e-3)
