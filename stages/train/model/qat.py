"""Quantisation-aware training: weights, and activations where they are rounded too, go through the numbers of a format and back.

Gradients pass as if nothing had been rounded, so weights move to where rounding does little. What is saved are the weights as
they are; quantize rounds them for good, with the configuration that is simulated here.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import MissingExtra
from pipeline.options.views import TrainOptions
from pipeline.rounding import check_groups, config_of, embedding_config
from pipeline.torchao_pairs import GROUP_SIZE, find_pair


def simulate_rounding(model: Any, options: TrainOptions) -> None:
    """Where ``qat`` asks for it, linear layers but the output head, and embeddings if it says so, compute with rounded weights.

    Raises:
        RegrowError: groups of weights that do not fill the rows of a layer.
        MissingExtra: torchao is not installed.
    """
    block = options.qat
    if block is None:
        return
    if find_spec("torchao") is None:
        raise MissingExtra("qat", "torchao", "int8")
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head}
    rows = {name: module.in_features for name, module in linear.items()}
    if block.quantize_embedding:
        rows |= {name: module.embedding_dim for name, module in model.named_modules() if module is embeddings}
    pair = find_pair(block.weight_dtype, block.activation_dtype)
    if pair is None:
        raise AssertionError("a pair that torchao does not have is refused by a rule")
    check_groups(rows, (block.group_size or GROUP_SIZE) if pair.grouped else pair.block, "qat", fixed=pair.block is not None)
    quantize_(model, QATConfig(config_of(block), step="prepare"), filter_fn=lambda _, name: name in linear)
    if block.quantize_embedding:
        quantize_(model, QATConfig(embedding_config(block), step="prepare"), filter_fn=lambda module, _: module is embeddings)


def rounding_callbacks(model: Any, options: TrainOptions) -> list[TrainerCallback]:
    """What begins the rounding after some steps of plain training, if ``qat`` asks for these."""
    steps = options.qat.fake_quant_after_n_steps if options.qat is not None else None
    return [BeginRounding(model, steps)] if steps else []


class BeginRounding(TrainerCallback):
    """Plain training for ``after`` steps. It follows from the step alone, so a resumed run rounds when it would have."""

    def __init__(self, model: Any, after: int) -> None:
        from torchao.quantization.qat.fake_quantizer import FakeQuantizerBase

        self._rounding, self._after = [module for module in model.modules() if isinstance(module, FakeQuantizerBase)], after

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for module in self._rounding:
            module.enabled = state.global_step >= self._after
