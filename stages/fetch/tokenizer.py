"""The tokenizer that training and inference use, into ``data/tokenizer``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.artifact import Draft
from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.options.tokenizer import TokenizerSource
from pipeline.options.views import FetchOptions
from stages.fetch.base import max_positions
from stages.fetch.chat_template import choose_template
from stages.fetch.locate import Located, Wanted
from stages.fetch.model_files import gguf_of, tokenizer_files
from stages.fetch.new_tokens import change_vocabulary

_UNSET_LENGTH = 10**29
"""transformers writes 1e30 where a tokenizer's maximum length is not known."""

_MOST_TOKENS = 2**24
"""The largest vocabularies have 2**18 tokens."""

_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|pad_token|>", "<|finetune_right_pad_id|>", "<|endoftext|>")
"""Tokens made for padding, as models of this field name them; then the end-of-text token of those that end turns with another."""

_OF_THIS_DISK = ("name_or_path", "is_local", "local_files_only", "vocab_file")


def write_tokenizer(options: FetchOptions, source: Located, model: Located, tokenizer: Draft, say: Callable[[str], None]) -> Any:
    """Load, complete and save the tokenizer of ``source``; returns it. No embedding is trained yet for ``new_tokens`` of the manifest."""
    loaded, new_tokens = make_tokenizer(options, source, say)
    if loaded.model_max_length > _UNSET_LENGTH and (length := max_positions(model, options.overrides_of_model_config or {})) is not None:
        loaded.model_max_length = length
    save_tokenizer(loaded, tokenizer.path, template_file=options.tokenizer_save_jinja_files)
    tokenizer.describe(vocab_size=len(loaded), new_tokens=new_tokens, pad_token=loaded.pad_token)
    return loaded


def make_tokenizer(options: TokenizerSource, source: Located, say: Callable[[str], None]) -> tuple[Any, list[str]]:
    """The tokenizer of ``source`` with the template and the tokens that the options ask for, and its new tokens.

    Raises:
        RegrowError: it cannot be read, or the options do not fit it.
    """
    loaded = load_tokenizer(source)
    loaded.chat_template = choose_template(options, loaded.chat_template)
    loaded, new_tokens = change_vocabulary(loaded, options, say)
    ensure_pad_token(loaded, source.wanted, say)
    return loaded, new_tokens


def save_tokenizer(tokenizer: Any, folder: Path, *, template_file: bool = True) -> None:
    """Write tokenizer.json, tokenizer_config.json and, unless it goes into the latter, chat_template.jinja."""
    tokenizer.save_pretrained(folder, save_jinja_files=template_file)
    _forget_this_disk(folder / "tokenizer_config.json")


def load_tokenizer(source: Located) -> Any:
    """The tokenizer exactly as tokenizer.json describes it.

    Not through AutoTokenizer: in transformers 5 a class such as GPT2Tokenizer, which many models name, builds the split and the
    normalizer anew from its own code and so loses what tokenizer.json says (SmolLM2's split of digits, for one).

    Raises:
        RegrowError: no tokenizer.json, or one that cannot be read.
    """
    from transformers import PreTrainedTokenizerFast

    if (gguf := gguf_of(source)) is not None:
        from stages.fetch.gguf_tokenizer import load_gguf_tokenizer

        return load_gguf_tokenizer(source.root / gguf, source.wanted)
    tokenizer_files(source.files, source.wanted)
    try:
        loaded = PreTrainedTokenizerFast.from_pretrained(source.root, local_files_only=True)
    except Exception as error:  # tokenizers raises Exception itself for a file that it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{source.wanted.option} {source.wanted.text!r}: its tokenizer cannot be opened: {reason}", "Download it again."
        ) from error
    _check_numbers(loaded, f"{source.wanted.option} {source.wanted.text!r}")
    return loaded


def _check_numbers(tokenizer: Any, what: str) -> None:
    """Numbers that nobody checks until they are used: tables are as long as the largest id."""
    length, largest = tokenizer.model_max_length, max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(length, bool) or not isinstance(length, int | float) or not length > 0:
        raise RegrowError(f"{what}: model_max_length of tokenizer_config.json is {length!r}, no length.", "Correct it, or remove it.")
    if not 0 <= largest < _MOST_TOKENS:
        raise RegrowError(f"{what}: the largest id of a token is {largest}; a model has fewer than {_MOST_TOKENS}.", "Download it again.")


def ensure_pad_token(tokenizer: Any, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Give a tokenizer without padding of its own (none, or the token that ends a turn) an existing special token for it.

    Where there is none to spare, padding is the token that ends a turn: masks, and not ids, say what is padding here.

    Raises:
        RegrowError: there is no such token either.
    """
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return
    was = "no pad token" if tokenizer.pad_token is None else f"the end-of-sequence token {tokenizer.pad_token!r} for padding"
    pad = _spare_token(tokenizer) or tokenizer.eos_token
    if pad is None:
        raise RegrowError(
            f"{wanted.option} {wanted.text!r}: its tokenizer has {was}, and no special token to spare.",
            "Set special_tokens.pad_token, and special_tokens.eos_token to what ends a turn.",
        )
    if tokenizer.pad_token != pad:
        tokenizer.pad_token = pad
        say(f"{wanted.option}: the tokenizer has {was}; padding with {pad!r} instead. special_tokens.pad_token sets another.")


def _spare_token(tokenizer: Any) -> str | None:
    """An existing special token that neither begins nor ends a text nor occurs in the chat template."""
    special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    template = json.dumps(tokenizer.chat_template or "", ensure_ascii=False)
    spare = [token for token in special if token not in (tokenizer.bos_token, tokenizer.eos_token) and token not in template]
    for token in (*_PAD_NAMES, tokenizer.unk_token):
        if token in spare:
            return str(token)
    return next((token for token in spare if "reserved" in token or "unused" in token), None)


def _forget_this_disk(config: Path) -> None:
    """Leave only what describes the tokenizer, under the class name that older transformers versions read too."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings = {name: value for name, value in settings.items() if name not in _OF_THIS_DISK} | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    config.write_text(canonical_json(settings), encoding="utf-8")
