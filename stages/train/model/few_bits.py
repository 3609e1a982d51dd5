"""A base model whose weights bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.model.precision import compute_dtype
from stages.train.packages import require


def quantisation(options: TrainOptions) -> dict[str, Any]:
    """Keywords of ``from_pretrained`` that have the weights quantised while they are loaded; none for weights held whole.

    Raises:
        RegrowError: bitsandbytes is missing, or has no such setting.
    """
    bits = "8bit" if options.load_in_8bit else "4bit" if options.load_in_4bit else None
    if bits is None:
        return {}
    require(f"load_in_{bits}: true", "bitsandbytes")
    from transformers import BitsAndBytesConfig

    given = options.bnb_config_kwargs or {}
    _check_known(given, BitsAndBytesConfig().to_dict())  # type: ignore[no-untyped-call]
    if (kind := given.get("bnb_4bit_quant_type", "nf4")) not in ("nf4", "fp4"):
        raise RegrowError(f"bnb_config_kwargs: bnb_4bit_quant_type: {kind!r} is no kind of 4-bit numbers.", "Write nf4 or fp4.")
    chosen: dict[str, Any] = {f"load_in_{bits}": True}
    if bits == "4bit":
        chosen |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": compute_dtype(options)}
    try:
        return {"quantization_config": BitsAndBytesConfig(**(chosen | given))}  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, AttributeError) as error:
        raise RegrowError(f"bnb_config_kwargs {given}: {error}", "Give each setting a value of its kind.") from error


_HOLDERS = ("Linear4bit", "Linear8bitLt")


def check_head(model: Any) -> None:
    """That a head which is the embedding too is held as that is; bitsandbytes fails at the first product otherwise.

    Raises:
        RegrowError: it is in few bits.
    """
    head = model.get_output_embeddings()
    if type(head).__name__ in _HOLDERS and model.config.tie_word_embeddings:
        name = next(name for name, module in model.named_modules() if module is head)
        raise RegrowError(
            f"bnb_config_kwargs: llm_int8_skip_modules leaves out {name}, which shares its weight with the embedding.",
            f"Add {name} to llm_int8_skip_modules.",
        )


def check_held(model: Any, options: TrainOptions) -> None:
    """What an adapter over few bits cannot do; PEFT finds it out later, in words about something else.

    Raises:
        RegrowError: a module in few bits that is to be trained whole, or DoRA over 8 bits on a CPU.
    """
    held = [name for name, module in model.named_modules() if type(module).__name__ in _HOLDERS]
    for name in options.lora_modules_to_save or []:
        if inside := [full for full in held if f".{name}." in f".{full}."]:
            kept = sorted({full.rpartition(".")[2] for full in inside})
            raise RegrowError(
                f"lora_modules_to_save: {name} cannot be trained whole, as {inside[0]} is held in few bits.",
                f"Leave it out, or hold it in all bits: bnb_config_kwargs: {{llm_int8_skip_modules: [{', '.join(kept)}, lm_head]}}.",
            )
    if held and options.load_in_8bit and options.peft_use_dora and model.device.type == "cpu":
        wrong = "peft_use_dora: true over load_in_8bit: true needs a CUDA device: on a CPU, PEFT loses the scales of the weights."
        raise RegrowError(wrong, "Write load_in_4bit: true (adapter: qlora) instead, or remove one of them.")


def _check_known(given: dict[str, Any], settings: dict[str, Any]) -> None:
    known = sorted(key for key in settings if not key.startswith(("_", "load_in", "quant_method")))
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise RegrowError(
                f"bnb_config_kwargs: BitsAndBytesConfig has no setting {key!r}{f'; did you mean {near[0]!r}?' if near else '.'}",
                f"It has {', '.join(known)}.",
            )


def keep_trainable(model: Any) -> None:
    """Keep bitsandbytes (0.50) from repacking 4-bit weights at the first evaluation, as it does on a CPU with bfloat16 instructions.

    Its product with repacked weights has no gradient: training after an evaluation would go on without one.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def each_row_alone(model: Any) -> Iterator[None]:
    """Have 8-bit layers quantise their inputs token by token, for as long as the context lasts.

    They leave columns out that hold an outlier (arXiv 2208.07339), in whichever row of the batch: so all rows change a little
    with each of them, by up to a tenth in SmolLM2's logits, which is no attention of one row to another.
    """
    states = [module.state for module in model.modules() if hasattr(getattr(module, "state", None), "threshold")]
    thresholds = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold
