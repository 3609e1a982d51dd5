"""Changes of a tokenizer's vocabulary that the recipe asks for, in the order that decides ids.

First tokens are renamed (``added_tokens_overrides``), then special tokens are set, then ordinary ones added, then further
special ones, so that the ids of the earlier ones do not depend on the later.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.tokenizer import SpecialTokens, TokenizerSource


def change_vocabulary(tokenizer: Any, options: TokenizerSource, say: Callable[[str], None]) -> tuple[Any, list[str]]:
    """Returns the tokenizer as the recipe wants it and its new tokens, by id.

    Raises:
        RegrowError: ``added_tokens_overrides`` names an id that is no added token, or a text that is taken.
    """
    if options.added_tokens_overrides:
        tokenizer = _renamed(tokenizer, options.added_tokens_overrides)
    before = tokenizer.get_vocab().keys()
    special = options.special_tokens or SpecialTokens()
    _set_special_tokens(tokenizer, special, say)
    if options.tokens:
        tokenizer.add_tokens([_plain(token) for token in options.tokens])
    if special.additional_special_tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": [_plain(token) for token in special.additional_special_tokens]})
    after = tokenizer.get_vocab()
    return tokenizer, sorted(after.keys() - before, key=after.__getitem__)


def _plain(text: str) -> Any:
    """A token that takes no spaces around it and is found in the text as it stands."""
    from tokenizers import AddedToken

    return AddedToken(text, lstrip=False, rstrip=False, normalized=False)


def _set_special_tokens(tokenizer: Any, special: SpecialTokens, say: Callable[[str], None]) -> None:
    """A tokenizer that put its old bos or eos around a text puts the new one there."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    wanted = {name: str(token) for name in names if (token := getattr(special, name)) is not None}
    around = tokenizer("")["input_ids"]
    adds_bos, adds_eos = tokenizer.bos_token_id in around, tokenizer.eos_token_id in around
    for name, token in wanted.items():
        if token not in tokenizer.get_vocab():
            say(f"special_tokens.{name}: {token!r} is not in the vocabulary and was added to it{_near(tokenizer, token)}.")
        tokenizer.add_special_tokens({name: _plain(token)})
    if wanted.keys() & {"bos_token", "eos_token"} and (adds_bos or adds_eos):
        tokenizer.add_bos_token, tokenizer.add_eos_token = adds_bos, adds_eos


def _near(tokenizer: Any, token: str) -> str:
    """Special tokens that resemble ``token``, in case it is a slip."""
    known = [str(added) for added in tokenizer.added_tokens_decoder.values()]
    near = get_close_matches(token, known, n=3, cutoff=0.7)
    return f" (it has {', '.join(near)})" if near else ""


def _renamed(tokenizer: Any, overrides: Mapping[int, str]) -> Any:
    """The tokenizer with other texts for added tokens: its files are rewritten, because a loaded one cannot be changed so."""
    from transformers import PreTrainedTokenizerFast

    old_names = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    _require_free(old_names, overrides, tokenizer.get_vocab())
    names = {old_names[number]: new for number, new in overrides.items()}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            path = Path(folder, file)
            path.write_text(json.dumps(_rename(json.loads(path.read_text(encoding="utf-8")), names)), encoding="utf-8")
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _require_free(added: Mapping[int, str], overrides: Mapping[int, str], vocabulary: Mapping[str, int]) -> None:
    for number, text in overrides.items():
        if number not in added:
            known = ", ".join(f"{known}: {token}" for known, token in sorted(added.items())[:12])
            raise RegrowError(f"added_tokens_overrides: token id {number} is no added token.", f"These are: {known}.")
        if vocabulary.get(text, number) != number:
            raise RegrowError(
                f"added_tokens_overrides: {text!r} (for token id {number}) is already the token of id {vocabulary[text]}.",
                "Use that token, or choose another text.",
            )


def _rename(node: Any, names: Mapping[str, str]) -> Any:
    """The same JSON value with other names for tokens, wherever they stand: vocabulary, added tokens, post-processor, special tokens."""
    if isinstance(node, dict):
        return {names.get(key, key): item if key == "merges" else _rename(item, names) for key, item in node.items()}
    if isinstance(node, list):
        return [_rename(item, names) for item in node]
    return names.get(node, node) if isinstance(node, str) else node
