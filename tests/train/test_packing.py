"""Rows that share a bin do not see each other, and how rows are laid out does not change what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import MambaConfig, MambaForCausalLM

from pipeline.artifact import open_artifact
from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.models import load_causal_lm
from pipeline.tokens import TokenTable
from stages.train.data.bins import BinDataset, Collator, Padding
from stages.train.loss import token_loss
from tests.tiny import publish_artifact
from tests.train.workspace import Row, build, make_rows, read_log, train

ROWS = make_rows(4, seed=3)


def separate_gradients(model: Any, rows: list[Row]) -> dict[str, torch.Tensor]:
    """By hand: each row alone, all positions, every trained token weighted equally."""
    model.zero_grad()
    total = sum(sum(mask[1:]) for _, mask in rows)
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        ((losses * torch.tensor(mask[1:])).sum() / total).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("select_logits", [True, False])
def test_a_packed_batch_has_the_gradient_of_separate_rows(tmp_path: Path, attention: str, select_logits: bool) -> None:
    """Two bins of unequal length, so padding takes part."""
    data = build(tmp_path, ROWS, [[0, 1, 2], [3]]) / "data"
    model = load_causal_lm(data / "base", attn_implementation=attention)
    model.config.use_cache = False
    expected = separate_gradients(model, ROWS)
    dataset = BinDataset(Bins.load(data / "packed" / "train.arrow"), TokenTable(data / "tokens"), 0)
    batch = Collator(0, select_logits=select_logits)([dataset[0], dataset[1]])
    assert "attention_mask" not in batch
    assert_gradient(model, batch, expected)


def assert_gradient(model: Any, batch: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    model.zero_grad()
    labels = batch.pop("labels")
    token_loss(model(**batch), labels, (labels != -100).sum()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("padding", "length"), [(Padding(least=64), 64), (Padding(multiple=48), 48), (Padding(least=50, multiple=32), 64)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_the_shape_and_not_the_gradient(tmp_path: Path, padding: Padding, length: int, attention: str) -> None:
    data = build(tmp_path, ROWS, [[0, 1, 2], [3]]) / "data"
    model = load_causal_lm(data / "base", attn_implementation=attention)
    model.config.use_cache = False
    expected = separate_gradients(model, ROWS)
    dataset = BinDataset(Bins.load(data / "packed" / "train.arrow"), TokenTable(data / "tokens"), 0)
    batch = Collator(0, select_logits=True, padding=padding)([dataset[0], dataset[1]])
    assert {name: tuple(batch[name].shape) for name in ("input_ids", "labels", "position_ids")} == dict.fromkeys(
        ("input_ids", "labels", "position_ids"), (2, length)
    )
    assert_gradient(model, batch, expected)


@pytest.mark.shows("pad_to_sequence_len", "pad_to_multiple_of")
@pytest.mark.parametrize(
    ("options", "shapes"),
    [({}, None), ({"pad_to_sequence_len": True}, "sequence_len"), ({"pad_to_multiple_of": 7}, 7)],
    ids=["as long as the longest", "sequence_len", "a multiple"],
)
def test_batches_of_a_run_are_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], shapes: str | int | None
) -> None:
    workspace, seen = build(tmp_path, ROWS, [[0], [1], [2], [3]]), []
    call: Any = Collator.__call__

    def watched(self: Collator, examples: Any) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = call(self, examples)
        seen.append((max(len(example["input_ids"]) for example in examples), batch["input_ids"].shape[1]))
        return batch

    monkeypatch.setattr(Collator, "__call__", watched)
    train(workspace, options | {"max_steps": 4})
    seen = seen[-4:]  # what came before is the proof that rows do not see each other
    whole = int(open_artifact(workspace / "data/packed").content["sequence_len"])
    expected = [longest if shapes is None else whole if shapes == "sequence_len" else -(-longest // 7) * 7 for longest, _ in seen]
    assert [length for _, length in seen] == expected and len(seen) == 4


def step_weights(workspace: Path, bins: list[list[int]], micro_batch_size: int, accumulation: int) -> dict[str, torch.Tensor]:
    """Weights after one plain SGD step over all rows."""
    build(workspace, ROWS, bins)
    batch = {"micro_batch_size": micro_batch_size, "gradient_accumulation_steps": accumulation}
    trained, metrics = train(workspace, batch | {"optimizer": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "max_grad_norm": 0})
    assert metrics["steps"] == 1
    return load_file(trained.path / "model.safetensors")


def test_neither_bins_nor_accumulation_change_a_step(tmp_path: Path) -> None:
    """The loss is divided by the trained tokens of the whole step, so each layout learns the same."""
    alone = step_weights(tmp_path / "alone", [[0], [1], [2], [3]], 4, 1)
    layouts: list[tuple[list[list[int]], int, int]] = [
        ([[0], [1], [2], [3]], 1, 4),
        ([[0], [1], [2], [3]], 3, 2),
        ([[0, 1], [2, 3]], 1, 2),
        ([[3, 1, 0, 2]], 1, 1),
    ]
    for number, (bins, micro_batch_size, accumulation) in enumerate(layouts):
        other = step_weights(tmp_path / str(number), bins, micro_batch_size, accumulation)
        for name, weight in alone.items():
            torch.testing.assert_close(other[name], weight, atol=2e-6, rtol=1e-5)


def test_a_row_without_trained_tokens_changes_nothing(tmp_path: Path) -> None:
    """Also as a micro-batch of its own, whose share of the loss is 0 and not 0 / 0."""
    build(tmp_path, [*ROWS, ([5, 6, 7], [0, 0, 0])], [[0], [1], [2], [3], [4]])
    options = {"optimizer": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "max_grad_norm": 0, "gradient_accumulation_steps": 5}
    silent = load_file(train(tmp_path, options)[0].path / "model.safetensors")
    for name, weight in step_weights(tmp_path / "alone", [[0], [1], [2], [3]], 4, 1).items():
        torch.testing.assert_close(silent[name], weight, atol=2e-6, rtol=1e-5)


def test_a_step_without_trained_tokens_has_no_loss(tmp_path: Path) -> None:
    workspace = build(tmp_path, [*ROWS, ([5, 6, 7], [0, 0, 0])], [[0], [1], [2], [3], [4]])
    losses = sorted(line["loss"] for line in read_log(train(workspace, {})[0]))
    assert losses[0] == 0
    assert losses[1] > 1


def test_a_model_without_numbers_is_not_said_to_mix_rows(tmp_path: Path) -> None:
    workspace = build(tmp_path, ROWS, [[0, 1], [2, 3]])
    model = load_causal_lm(workspace / "data" / "base")
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    publish_artifact(workspace / "data", "base", model.save_pretrained)
    with pytest.raises(RegrowError, match="LlamaForCausalLM gives logits that are no numbers, before the first step"):
        train(workspace, {})


def test_an_architecture_that_mixes_packed_rows_is_refused(tmp_path: Path) -> None:
    """A state-space model carries its state across the border of rows, and takes position ids without complaint."""
    workspace = build(tmp_path, ROWS, [[0, 1], [2, 3]])
    mamba = MambaForCausalLM(MambaConfig(vocab_size=259, hidden_size=16, num_hidden_layers=1, state_size=4))
    publish_artifact(workspace / "data", "base", mamba.save_pretrained)
    with pytest.raises(RegrowError, match="see each other in MambaForCausalLM") as caught:
        train(workspace, {})
    assert "sample_packing: false" in str(caught.value)
