"""The tokenizer that training and inference use, into ``data/tokenizer``."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.artifact import Draft
from pipeline.digest import canonical_json
from pipeline.errors import RegrowError
from pipeline.options.tokenizer import SpecialTokens
from pipeline.options.views import FetchOptions
from stages.fetch.base import max_positions
from stages.fetch.chat_template import choose_template
from stages.fetch.locate import Located, Wanted
from stages.fetch.model_files import gguf_of, tokenizer_files

_UNSET_LENGTH = 10**29
"""transformers writes 1e30 where a tokenizer's maximum length is not known."""

_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|pad_token|>", "<|finetune_right_pad_id|>", "<|endoftext|>")
"""Tokens made for padding, as models of this field name them; then the end-of-text token of those that end turns with another."""

_OF_THIS_DISK = ("name_or_path", "is_local", "local_files_only", "vocab_file")


def write_tokenizer(options: FetchOptions, source: Located, model: Located, tokenizer: Draft, say: Callable[[str], None]) -> Any:
    """Load, complete and save the tokenizer of ``source``; returns it."""
    loaded = load_tokenizer(source)
    loaded.chat_template = choose_template(options, loaded.chat_template)
    set_special_tokens(loaded, options.special_tokens or SpecialTokens())
    ensure_pad_token(loaded, source.wanted, say)
    if loaded.model_max_length > _UNSET_LENGTH and (length := max_positions(model)) is not None:
        loaded.model_max_length = length
    loaded.save_pretrained(tokenizer.path)
    _forget_this_disk(tokenizer.path / "tokenizer_config.json")
    tokenizer.describe(vocab_size=len(loaded))
    return loaded


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
        return PreTrainedTokenizerFast.from_pretrained(source.root, local_files_only=True)
    except Exception as error:  # tokenizers raises Exception itself for a file that it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{source.wanted.option} {source.wanted.text!r}: its tokenizer cannot be opened: {reason}", "Download it again."
        ) from error


def set_special_tokens(tokenizer: Any, special: SpecialTokens) -> None:
    """Apply the `special_tokens` option. A tokenizer that put its old bos or eos around a text puts the new one there.

    Raises:
        RegrowError: a token that the vocabulary does not hold.
    """
    wanted = {name: token for name in SpecialTokens.model_fields if (token := getattr(special, name)) is not None}
    vocabulary = tokenizer.get_vocab()
    for name, token in wanted.items():
        if token not in vocabulary:
            known = sorted(str(added) for added in tokenizer.added_tokens_decoder.values())
            near = get_close_matches(token, known, n=3, cutoff=0.5) or known[:8]
            raise RegrowError(
                f"special_tokens.{name}: {token!r} is not in the vocabulary.", f"Set one of its tokens, such as {', '.join(near)}."
            )
    around = tokenizer("")["input_ids"]
    adds_bos, adds_eos = tokenizer.bos_token_id in around, tokenizer.eos_token_id in around
    tokenizer.add_special_tokens(wanted)
    if wanted.keys() & {"bos_token", "eos_token"} and (adds_bos or adds_eos):
        tokenizer.add_bos_token, tokenizer.add_eos_token = adds_bos, adds_eos


def ensure_pad_token(tokenizer: Any, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Give a tokenizer without padding of its own (none, or the token that ends a turn) an existing special token for it.

    Padding that equals the end of turn would have the model's end-of-turn embedding left untrained.

    Raises:
        RegrowError: there is no special token to spare.
    """
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return
    was = "no pad token" if tokenizer.pad_token is None else f"the end-of-sequence token {tokenizer.pad_token!r} for padding"
    pad = _spare_token(tokenizer)
    if pad is None:
        raise RegrowError(
            f"{wanted.option} {wanted.text!r}: its tokenizer has {was}, and no special token to spare.",
            "Set special_tokens.pad_token to a token of its vocabulary that your data does not use.",
        )
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
