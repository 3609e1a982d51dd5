"""Which numbers the model is held and computed in, on the device that is there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.packages import require

Precision = Literal["fp32", "bf16", "fp16", "full bf16", "full fp16", "fp8"]
"""bf16, fp16 and fp8 are of products, under autocast, with weights in fp32; the full ones are of everything."""

_FP8_CAPABILITY = (8, 9)
_TF32_CAPABILITY = (8, 0)


def choose_precision(options: TrainOptions, say: Callable[[str], None]) -> Precision:
    """The precision that the options ask for.

    Raises:
        RegrowError: a precision was asked for that this device cannot do, or two at once.
    """
    if options.fp16 and options.bf16 is True:
        raise RegrowError("bf16: true and fp16: true exclude each other.", "Set one of them to false.")
    cuda = torch.cuda.is_available()
    for name in ("fp16", "float16", "tf32", "fp8"):
        if getattr(options, name) and not cuda:
            raise RegrowError(
                f"{name}: true needs a CUDA device, and this machine has none.", f"Set {name}: false; bf16: auto computes in fp32 on a CPU."
            )
    if options.tf32 and torch.cuda.get_device_capability() < _TF32_CAPABILITY:
        raise RegrowError(
            "tf32: true, but this CUDA device has no TensorFloat-32.", "Remove it; products of fp32 are computed in fp32 then."
        )
    capable = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if options.fp8:
        _check_fp8()
        return "fp8"
    if options.float32 or options.float16 or options.fp16:
        return "fp32" if options.float32 else "full fp16" if options.float16 else "fp16"
    if options.bf16 == "auto" and not options.bfloat16:
        return "bf16" if capable else "fp32"
    if not (options.bf16 or options.bfloat16):
        return "fp32"
    _check_bf16(options, say, cuda, capable)
    return "full bf16" if weights_dtype(options) is torch.bfloat16 else "bf16"


def weights_dtype(options: TrainOptions) -> torch.dtype:
    """What the weights are held in, which the optimizer's states follow."""
    if options.bfloat16 or options.bf16 == "full":
        return torch.bfloat16
    return torch.float16 if options.float16 else torch.float32


def compute_dtype(options: TrainOptions) -> torch.dtype:
    """What products are computed in."""
    halves = {"fp32": torch.float32, "fp16": torch.float16, "full fp16": torch.float16}
    return halves.get(choose_precision(options, lambda _: None), torch.bfloat16)


def as_in_training(options: TrainOptions, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast that the Trainer puts around a model's forward, for passes before it does."""
    numbers = compute_dtype(options)
    return torch.autocast(device.type, numbers) if weights_dtype(options) is torch.float32 is not numbers else nullcontext()


def compute_in_8_bits(model: Any, emulate: bool = False) -> None:
    """Replace linear layers by torchao's, which scale their inputs, weights and gradients into 8-bit floats for each product.

    The output head and an adapter stay as they are, and so does a layer whose sides are no multiples of 16, which the kernels need.
    ``emulate``: do the same arithmetic without the kernels.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    head = model.get_output_embeddings()

    def fits(module: torch.nn.Module, name: str) -> bool:
        if not isinstance(module, torch.nn.Linear) or module is head or ".lora_" in name:
            return False
        return module.in_features % 16 == module.out_features % 16 == 0

    # The product of a weight's gradient runs over all tokens, and bins have any number of them: the kernels take multiples of 16.
    convert_to_float8_training(model, module_filter_fn=fits, config=Float8LinearConfig(emulate=emulate, pad_inner_dim=True))


def halve_frozen(model: Any, options: TrainOptions) -> None:
    """Hold the frozen linear layers under an adapter in the numbers that autocast computes them in.

    The results are the same to the bit, with half the memory, and weights need not be cast at every use: autocast remembers
    its casts only of weights that are trained. Left in fp32: what DoRA measures, ReLoRA changes, or the embedding is tied to.
    """
    autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(choose_precision(options, lambda _: None))
    measured = options.peft_use_dora or options.relora or options.lora_target_parameters
    # Trainers of preferences also call the model where there is no autocast.
    compares = options.rl is not None or options.reward_model or options.process_reward_model
    if autocast is None or options.adapter is None or measured or compares:
        return
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    kept = {id(weight) for end in ends if end is not None for weight in end.parameters()}  # under an adapter the head is a module inside
    for module in model.modules():
        if type(module) is torch.nn.Linear and not any(weight.requires_grad or id(weight) in kept for weight in module.parameters()):
            module.to(autocast)


def _check_fp8() -> None:
    if torch.cuda.get_device_capability() < _FP8_CAPABILITY:
        raise RegrowError("fp8: true, but this CUDA device has no 8-bit floats.", "Set fp8: false; bf16: auto computes in bfloat16.")
    require("fp8: true", "torchao")


def _check_bf16(options: TrainOptions, say: Callable[[str], None], cuda: bool, capable: bool) -> None:
    asked = "bfloat16: true" if options.bfloat16 else f"bf16: {str(options.bf16).lower()}"
    if cuda and not capable:
        raise RegrowError(f"{asked}, but this CUDA device has no bfloat16.", "Set bf16: auto (fp32 here), or fp16: true.")
    if not cuda and not _cpu_has_bf16():
        say(f"{asked} is slow here: this CPU has no bfloat16 instructions. fp32 (bf16: auto) is more than ten times faster.")


def _cpu_has_bf16() -> bool:
    """AVX512-BF16, AMX-BF16 and their like. With them bf16 was 1.8 times as fast as fp32, without them 14 times slower."""
    return any("bf16" in name and present is True for name, present in torch.cpu.get_capabilities().items())
