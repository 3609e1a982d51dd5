"""Rules about formats of quantised models, and about training for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions
from pipeline.quantized_formats import BNB_TYPES, GGUF_TYPES, GROUPED_SCHEMES, KEYS, NEEDED, folder_name
from pipeline.torchao_pairs import PAIRS, find_pair, short, table

_TYPES = {"gguf": GGUF_TYPES, "bitsandbytes": BNB_TYPES}
_BITS = {"auto-round": (2, 3, 4, 8), "gptq": (2, 4, 8), "awq": (4,)}


def entries_say_what_their_format_reads(options: RecipeOptions) -> Iterator[Broken]:
    """A key that belongs to another format would have no effect."""
    for place, entry in _entries(options, "quantize"):
        for key in sorted(entry.model_fields_set - {"format", *KEYS[entry.format]}):
            if getattr(entry, key) not in (None, False):
                yield broken(f"{place}.{key} {place}", f"{entry.format} has no such key", f"what it has: {', '.join(KEYS[entry.format])}")
        needed = NEEDED.get(entry.format)
        if needed is not None and getattr(entry, needed) is None:
            yield broken(
                f"{place}.format {place}", f"{entry.format} needs {needed}", f"add `{needed}: …`; see `regrow explain quantize.{needed}`"
            )


def types_belong_to_their_format(options: RecipeOptions) -> Iterator[Broken]:
    """GGUF and bitsandbytes both call theirs a type; not every layout holds every number of bits."""
    for place, entry in _entries(options, "quantize"):
        known = _TYPES.get(entry.format)
        if known is not None and entry.type is not None and entry.type not in known:
            yield broken(f"{place}.type {place}", f"{entry.format} has no type {entry.type}", f"write one of {', '.join(known)}")
        bits = _BITS.get(entry.format)
        if bits is not None and (entry.bits or 4) not in bits:
            works = f"write {' or '.join(map(str, bits))}, or `format: auto-round`"
            yield broken(f"{place}.bits {place}", f"the layout of {entry.format} has no {entry.bits} bits", works)


def schemes_have_groups_or_none(options: RecipeOptions) -> Iterator[Broken]:
    """Some schemes of compressed-tensors have a scale for each row."""
    for place, entry in _entries(options, "quantize"):
        if entry.scheme is not None and entry.scheme not in GROUPED_SCHEMES and entry.group_size is not None:
            works = f"remove it; {', '.join(GROUPED_SCHEMES)} have groups"
            yield broken(f"{place}.group_size {place}", f"{entry.scheme} has a scale for each row, and no groups", works)


def judges_are_not_quantised(options: RecipeOptions) -> Iterator[Broken]:
    """No format keeps the head that scores."""
    which = "reward_model" if options.reward_model else "process_reward_model" if options.process_reward_model else None
    if which is not None and options.quantize and "quantize" in options.model_fields_set:
        yield broken(f"quantize {which}", "no format keeps the head of a reward model", "write `quantize: []`, or leave it out")


def formats_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """Each of them is written once."""
    seen: dict[str, str] = {}
    for place, entry in _entries(options, "quantize"):
        if entry.format == "torchao" and find_pair(entry.weight_dtype, entry.activation_dtype) is None:
            continue
        first = seen.setdefault(folder_name(entry), place)
        if first != place:
            yield broken(place, f"{first} asks for the same format, {folder_name(entry)}", "keep one of them")


def rounding_is_simulated_on_whole_weights(options: RecipeOptions) -> Iterator[Broken]:
    """Simulated rounding needs weights that are trained."""
    for other in ("adapter", "peft", "load_in_8bit", "load_in_4bit"):
        if options.qat is not None and getattr(options, other):
            yield broken(f"qat {other}", f"{other} is set too; rounding is simulated on weights that are trained whole", f"remove {other}")


def rounding_is_simulated_alone(options: RecipeOptions) -> Iterator[Broken]:
    """Both replace the linear layers by their own."""
    if options.qat is not None and options.fp8:
        yield broken("qat fp8", "fp8 computes the same layers in another way", "remove one of them")


def rounding_is_simulated_on_text(options: RecipeOptions) -> Iterator[Broken]:
    """Preferences and judgements come with a second model, or with a head, that would have to be left alone."""
    for other in ("rl", "reward_model", "process_reward_model"):
        if options.qat is not None and getattr(options, other):
            yield broken(f"qat {other}", f"with {other}, rounding is not simulated", f"remove qat, or {other}")


def rounded_once(options: RecipeOptions) -> Iterator[Broken]:
    """A model trained for one quantisation is quantised that way."""
    if options.qat is not None and options.quantization is not None:
        yield broken("quantization qat", "qat says already how the model is quantised", "remove quantization")


def dtypes_are_a_pair(options: RecipeOptions) -> Iterator[Broken]:
    """torchao has kernels for some pairs of number formats, and simulates some of these."""
    for place, block in _pairs(options, "qat", "quantization", "quantize"):
        pair, trained = find_pair(block.weight_dtype, block.activation_dtype), place == "qat"
        if pair is None or (trained and not pair.trained):
            has = "cannot train for a" if trained and pair is not None else "has no"
            wrong = f"torchao {has} pair of {block.weight_dtype} weights and {block.activation_dtype or 'plain'} activations"
            yield broken(f"{place}.weight_dtype {place}", wrong, f"write one of these pairs:\n{table(trained=trained)}")


def pairs_take_what_they_have(options: RecipeOptions) -> Iterator[Broken]:
    """Groups of weights, quantised embeddings and packed weights belong to some pairs only."""
    for place, block in _pairs(options, "qat", "quantization", "quantize"):
        pair = find_pair(block.weight_dtype, block.activation_dtype)
        if pair is None:
            continue
        told = f"{block.weight_dtype} weights with {block.activation_dtype or 'plain'} activations"
        if pair.grouped is False and block.group_size is not None:
            yield broken(f"{place}.group_size", f"{told} have no groups", "remove it")
        if not pair.embedding and block.quantize_embedding:
            having = ", ".join(sorted({short(other.weight) or "" for other in PAIRS if other.embedding}))
            yield broken(
                f"{place}.quantize_embedding", f"torchao has no embeddings in {block.weight_dtype}", f"remove it; those of {having} work"
            )
        if getattr(block, "packed", None) and (pair.weight, pair.activation) != ("int4", None):
            yield broken(f"{place}.packed", f"{told} are not packed", "remove it; weight_dtype int4 without activation_dtype has it")


def _pairs(options: RecipeOptions, *keys: str) -> Iterator[tuple[str, Any]]:
    """Place and block of everything under ``keys`` that names a pair for torchao."""
    for key in keys:
        found = getattr(options, key)
        if isinstance(found, list):
            yield from ((place, entry) for place, entry in _entries(options, key) if entry.format == "torchao" and entry.weight_dtype)
        elif found is not None:
            yield key, found


def _entries(options: RecipeOptions, key: str) -> Iterator[tuple[str, Any]]:
    yield from ((f"{key}.{index}", entry) for index, entry in enumerate(listed(options, key)))


QUANTIZATION = (
    entries_say_what_their_format_reads,
    types_belong_to_their_format,
    schemes_have_groups_or_none,
    judges_are_not_quantised,
    formats_are_distinct,
    rounding_is_simulated_on_whole_weights,
    rounding_is_simulated_alone,
    rounding_is_simulated_on_text,
    rounded_once,
    dtypes_are_a_pair,
    pairs_take_what_they_have,
)
