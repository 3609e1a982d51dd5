"""Attention by documents gives what a mask over the whole bin gives, on every road that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.views import TrainOptions
from stages.train.attention import kernels, repeatable, varlen
from stages.train.attention.kernels import choose_attention, loaded_with
from stages.train.data.bins import Collator
from stages.train.determinism import determinism
from stages.train.model.build import build_model
from stages.train.model.compilation import compile_layers
from tests.train.workspace import FULL, Heard, finished, read_log, train

SIZES: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FEW_HEADS = SIZES | {"num_key_value_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "LlamaConfig": FEW_HEADS,
    "MistralConfig": FEW_HEADS | {"sliding_window": 6},
    "Gemma3TextConfig": FEW_HEADS | {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "GPTNeoXConfig": SIZES,
}


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def make_model(name: str, **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, name)(**(MODELS.get(name, {}) | changes))
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()  # type: ignore[no-untyped-call]


def positions(*rows: list[int]) -> torch.Tensor:
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_a_mask_over_the_bin(name: str) -> None:
    """Windows, fewer heads of keys, several rows, and pads that are documents of one token."""
    model, place = make_model(name), positions([9, 12, 1, 1, 1], [3, 3, 3, 15])
    ids = torch.randint(0, 99, place.shape)
    varlen.register()
    results = []
    for kernel in ("sdpa", varlen.NAME):
        model.set_attn_implementation(kernel)
        model.zero_grad()
        logits = model(input_ids=ids, position_ids=place, use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()  # type: ignore[no-untyped-call]
        results.append([logits, *(weight.grad.clone() for weight in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_a_cache_and_pads_in_front_is_that_of_sdpa(name: str) -> None:
    model, ids = make_model(name, pad_token_id=0, bos_token_id=1, eos_token_id=None), torch.randint(3, 99, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    varlen.register()
    answers = []
    for kernel in ("sdpa", varlen.NAME):
        model.set_attn_implementation(kernel)
        answers.append(model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0))
    assert answers[0].tolist() == answers[1].tolist()


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor, *rest: Any, **given: Any) -> torch.Tensor:
    """What torch's variable-length kernel computes, by its description, with a mask over everything."""
    ends, longest = rest[0], rest[1:]
    assert ends is borders and borders.dtype == torch.int32 and set(longest) == {int(borders.diff().max())}
    back, ahead = given["window_size"]
    assert ahead == 0 and given["enable_gqa"] == (query.shape[1] != key.shape[1])
    place = torch.arange(len(query))
    document = torch.bucketize(place, borders[1:-1], right=True)
    distance = place[:, None] - place[None, :]
    seen = (document[:, None] == document[None, :]) & (distance >= 0) & ((distance <= back) | (back < 0))
    several = query.shape[1] // key.shape[1]
    queries, keys, values = (
        part.transpose(0, 1) for part in (query, key.repeat_interleave(several, 1), value.repeat_interleave(several, 1))
    )
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=given["scale"]).transpose(0, 1)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), heads=st.sampled_from([2, 4]), window=st.sampled_from([None, 1, 3, 20]))
def test_both_kernels_agree(lengths: list[int], heads: int, window: int | None) -> None:
    """The GPU's kernel is doubled here by its definition; what is tested is what it is handed."""
    patch = pytest.MonkeyPatch()
    patch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    found = varlen.find_documents(positions(lengths))
    assert found.lengths == lengths
    query, key, value = (torch.randn(sum(lengths), count, 8, dtype=torch.bfloat16) for count in (4, heads, heads))
    settings_: dict[str, Any] = {"dropout": 0.0, "scaling": 0.3, "window": window}
    in_one = varlen.in_one_kernel(query, key, value, found, **settings_)
    patch.undo()
    torch.testing.assert_close(in_one, varlen.one_by_one(query, key, value, found, **settings_), rtol=2e-2, atol=2e-2)


@torch.library.custom_op("tests::attend", mutates_args=())
def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor, longest: int) -> torch.Tensor:
    """Like torch's variable-length kernel one call that a compiler does not look into, and whose gradient is another one."""
    return attention_by_hand(query, key, value, borders)[1]


@torch.library.custom_op("tests::attend_backward", mutates_args=())
def attend_backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shares, _ = attention_by_hand(query, key, value, borders)
    several, scale = query.shape[1] // key.shape[1], query.shape[-1] ** -0.5
    queries, keys, values, gradients = (
        part.transpose(0, 1) for part in (query, key.repeat_interleave(several, 1), value.repeat_interleave(several, 1), gradient)
    )
    of_shares = gradients @ values.mT
    scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * scale
    found = (scores @ keys, *((product.unflatten(0, (-1, several)).sum(1)) for product in (scores.mT @ queries, shares.mT @ gradients)))
    first, second, third = (part.transpose(0, 1).contiguous() for part in found)
    return first, second, third


def attention_by_hand(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(softmax, output)."""
    several, place = query.shape[1] // key.shape[1], torch.arange(len(query))
    document = torch.bucketize(place, borders[1:-1], right=True)
    seen = (document[:, None] == document[None, :]).tril()
    queries, keys, values = (
        part.transpose(0, 1) for part in (query, key.repeat_interleave(several, 1), value.repeat_interleave(several, 1))
    )
    shares = (queries @ keys.mT * query.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    return shares, (shares @ values).transpose(0, 1).contiguous()


attend.register_fake(lambda query, key, value, borders, longest: torch.empty_like(query, memory_format=torch.contiguous_format))
attend_backward.register_fake(
    lambda gradient, *tensors: tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors[:3])
)
attend.register_autograd(
    lambda ctx, gradient: (*torch.ops.tests.attend_backward(gradient, *ctx.saved_tensors), None, None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:4]),
)


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_call_the_kernel_for_any_documents(monkeypatch: pytest.MonkeyPatch, recompute: bool) -> None:
    """Two graphs at most for all layers and batches: one of the first lengths, and one of any."""
    from torch._dynamo.utils import counters

    def kernel(query: Any, key: Any, value: Any, borders: Any, *rest: Any, **given: Any) -> Any:
        assert given["window_size"] == (-1, 0) and given["enable_gqa"]
        return attend(query, key, value, borders, rest[1])

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(varlen, "_has_kernel", lambda *_: True)
    monkeypatch.setattr(varlen, "_HALF", (torch.float32,))
    varlen.register()
    model = make_model("LlamaConfig", num_hidden_layers=4)
    model.set_attn_implementation(varlen.NAME)
    model.train()
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    batches = [_batch(lengths) for lengths in ([9, 12, 3], [5, 5, 7, 20, 2], [30], [1, 1, 40, 2, 9], [11, 8])]
    assert varlen.tells_documents(model)
    expected = [_learn(model, batch) for batch in batches]
    torch._dynamo.reset()
    counters.clear()
    compile_layers(model, view(torch_compile=True, torch_compile_backend="aot_eager"))
    found = [_learn(model, batch) for batch in batches]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] <= 2 and not counters["graph_break"]


def _batch(lengths: list[int]) -> dict[str, Any]:
    place = positions(lengths)[0].numpy()
    ids = np.arange(1, len(place) + 1) % 99
    return Collator(0, select_logits=False, tell_documents=True)([{"input_ids": ids, "labels": ids, "position_ids": place}])


def _learn(model: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    torch.autograd.backward(loss)
    return [loss.detach(), *(weight.grad.clone() for weight in model.parameters())]


class OnGpu:
    """What a tensor says of itself there."""

    is_cuda, device, dtype = True, torch.device("cuda", 0), torch.bfloat16

    def __init__(self, size: int) -> None:
        self.shape = (1, 4, 9, size)


@pytest.mark.parametrize(
    ("size", "capability", "taken"),
    [(64, (9, 0), True), (256, (8, 0), True), (64, (7, 5), False), (4, (9, 0), False), (264, (9, 0), False)],
)
def test_where_a_gpu_has_the_kernel(monkeypatch: pytest.MonkeyPatch, size: int, capability: tuple[int, int], taken: bool) -> None:
    """It refuses GPUs before Ampere, heads of more than 256 numbers, and heads that 8 does not divide."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    tensors: Any = [OnGpu(size)] * 3
    assert varlen._has_kernel(*tensors, 0.0) is taken
    assert not varlen._has_kernel(*tensors, 0.1)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float32])
def test_torch_takes_what_it_is_handed(monkeypatch: pytest.MonkeyPatch, numbers: torch.dtype, window: int | None) -> None:
    """Types and shapes, with tensors that have no memory: under autocast queries are fp32, and values are not. Gradients are strict."""
    monkeypatch.setattr("torch.get_autocast_dtype", lambda kind: torch.bfloat16)
    monkeypatch.setattr(repeatable, "_wanted", lambda tensor: torch.get_deterministic_debug_mode() == 1)
    modes: list[int] = []

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        modes.append(torch.get_deterministic_debug_mode())
        return tensor

    tensors = [torch.empty(30, heads, 64, device="meta", dtype=kind) for heads, kind in ((8, numbers), (2, numbers), (2, torch.bfloat16))]
    query, key, value = (tensor.requires_grad_() for tensor in tensors)
    found = varlen.Documents([10, 20], torch.empty(3, dtype=torch.int32, device="meta"), 20)
    with determinism(), torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        output = varlen.in_one_kernel(query, key, value, found, dropout=0.0, scaling=None, window=window)
        torch.autograd.backward(output.float().sum())
    assert output.dtype is torch.bfloat16 and output.shape == query.shape
    assert [tensor.grad is not None and tensor.grad.shape for tensor in (query, key, value)] == [query.shape, key.shape, value.shape]
    assert set(modes) == {2} and torch.get_deterministic_debug_mode() == 0


def test_every_row_of_a_batch_begins_a_document() -> None:
    found = varlen.find_documents(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 0]]))
    assert (found.lengths, found.borders.tolist(), found.longest) == ([3, 1, 2, 1, 1], [0, 3, 4, 6, 7, 8], 3)


@pytest.mark.shows("attn_implementation")
@pytest.mark.parametrize(("asked", "taken"), [(None, "varlen"), ("varlen", "varlen"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_the_kernel_that_is_taken(published: Path, workspace: Path, asked: str | None, taken: str) -> None:
    options = view(attn_implementation=asked)
    assert build_model(published / "data" / "base", options).config._attn_implementation == taken
    expected = [line["loss"] for line in finished(published, FULL).log]
    trained, _ = train(workspace, FULL | {"attn_implementation": asked}, progress=Heard())
    assert [line["loss"] for line in read_log(trained)] == pytest.approx(expected, rel=1e-4)


def test_a_kernel_is_no_part_of_what_is_published(workspace: Path) -> None:
    trained, _ = train(workspace, FULL | {"max_steps": 1})
    assert "varlen" not in (trained.path / "config.json").read_text()


def test_an_architecture_that_does_not_agree_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the one that tells no layer where its tokens stand."""
    monkeypatch.setattr(varlen, "find_documents", lambda place: varlen.Documents([place.numel()], torch.empty(0), place.numel()))
    model = make_model("LlamaConfig")
    choose_attention(model, view())
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(RegrowError, match="varlen does not compute the same as sdpa in LlamaForCausalLM"):
        choose_attention(model, view(attn_implementation="varlen"))


@pytest.mark.parametrize(("quantised", "taken"), [(True, "varlen"), (False, "sdpa")])
def test_few_bits_round_more_than_attention_differs(monkeypatch: pytest.MonkeyPatch, quantised: bool, taken: str) -> None:
    """They compute in bfloat16 between weights that say fp32."""
    model = make_model("LlamaConfig")
    model.is_quantized = quantised
    real = kernels._logits
    monkeypatch.setattr(kernels, "_logits", lambda model: real(model) * (1.01 if model.config._attn_implementation == "varlen" else 1))
    choose_attention(model, view())
    assert model.config._attn_implementation == taken


EXPERTS: dict[str, Any] = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}


@pytest.mark.parametrize(
    ("name", "changes", "taken"),
    [
        ("Qwen2MoeConfig", EXPERTS | {"use_sliding_window": True, "sliding_window": 32}, "sdpa"),
        ("PhimoeConfig", {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 32}, "sdpa"),
        ("Qwen2MoeConfig", EXPERTS, "varlen"),
        ("MistralConfig", {"sliding_window": 32}, "varlen"),
    ],
)
def test_a_window_that_only_the_mask_knows_is_kept(name: str, changes: dict[str, Any], taken: str) -> None:
    """Windows wider than the documents of the check, which would not show that one is lost; rows of a run are longer."""
    model = make_model(name, **(FEW_HEADS | changes))
    choose_attention(model, view())
    assert model.config._attn_implementation == taken
    ids, place = torch.randint(0, 99, (1, 70)), positions([50, 20])
    found = model(input_ids=ids, position_ids=place, use_cache=False).logits
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(found, model(input_ids=ids, position_ids=place, use_cache=False).logits, rtol=1e-3, atol=1e-5)


def test_scores_that_are_capped_are_refused() -> None:
    empty = torch.empty(1, 2, 3, 4)
    with pytest.raises(RegrowError, match="caps its scores"):
        varlen.VarlenAttention()(torch.nn.Linear(1, 1), empty, empty, empty, None, softcap=50.0)


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    with pytest.raises(RegrowError, match=f"{kernel} needs a CUDA device"):
        loaded_with(view(attn_implementation=kernel))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    if kernel == "flex_attention":
        assert loaded_with(view(attn_implementation=kernel)) == kernel
        return
    with pytest.raises(RegrowError, match=f"{kernel} needs") as caught:
        loaded_with(view(attn_implementation=kernel))
    assert isinstance(caught.value, MissingExtra) == (kernel == "flash_attention_2")
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    assert loaded_with(view(attn_implementation=kernel)) == kernel
