"""A tiny model under an optimizer from options, a few steps without a Trainer: what the tests of optimizers look at."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.optimizers import OPTIMIZERS
from pipeline.options.views import TrainOptions
from stages.train.optimizers.build import build_optimizer

Weights = dict[str, torch.Tensor]
TOKENS = torch.arange(2 * 12).reshape(2, 12) % 40


def view(**options: Any) -> TrainOptions:
    """Options of train."""
    return TrainOptions.model_validate({"learning_rate": 1e-2} | options)


def tiny_model(seed: int = 0) -> Any:
    """Two layers of 32 dimensions, with vectors, matrices of three shapes, and tied embeddings."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True, attention_bias=True))


_START = tiny_model()


def asked(name: str) -> dict[str, Any]:
    """What an optimizer needs to be asked for with, besides its name."""
    known = OPTIMIZERS[name]
    options: dict[str, Any] = {"optimizer": name}
    if known.projection:
        options |= {"optim_target_modules": ["self_attn", "mlp"], "optim_args": {"rank": 4, "update_proj_gap": 1}}
    return options | ({"dion_lr": 1e-2} if name == "dion" else {})


def stepped(options: Mapping[str, Any], *, restart: bool = False, steps: int = 3, dtype: torch.dtype = torch.float32) -> Weights:
    """The weights after so many steps. ``restart``: after the first, everything goes through a checkpoint into new objects."""
    model = copy.deepcopy(_START).to(dtype)
    optimizer = build_optimizer(model, view(**options), 0)
    for number in range(steps):
        if restart and number == 1:
            saved = _reread(optimizer.state_dict())
            model = copy.deepcopy(model)
            for parameter in model.parameters():
                parameter._post_accumulate_grad_hooks = None
            optimizer = build_optimizer(model, view(**options), 0)
            optimizer.load_state_dict(saved)
        step(model, optimizer, options)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def step(model: Any, optimizer: Any, options: Mapping[str, Any]) -> None:
    """One forward and backward pass, and what follows."""
    if callable(switch := getattr(optimizer, "train", None)):
        switch()
    loss = model(input_ids=TOKENS, labels=TOKENS).loss
    if OPTIMIZERS[str(options["optimizer"])].own_loop:
        optimizer.fused_backward(loss, 1e-2)
        return
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _reread(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file, read as checkpoints are: nothing in it can run code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def differ(left: Weights, right: Weights) -> bool:
    """Whether any weight is another number."""
    return any(not torch.equal(left[name], right[name]) for name in left)
