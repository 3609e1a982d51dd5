"""The embedding matrix follows the tokenizer: one row per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions


def fit_embeddings(model: Any, options: TrainOptions, tokenizer: Mapping[str, Any]) -> None:
    """Add rows for tokens that fetch added, or round and shrink as the options ask. New rows are seeded with the model.

    Args:
        tokenizer: what the manifest of ``data/tokenizer`` says: ``vocab_size``, ``new_tokens``, ``pad_token``.

    Raises:
        RegrowError: new tokens together with an adapter, which leaves the embedding as it is.
    """
    rows, tokens = model.get_input_embeddings().num_embeddings, int(tokenizer.get("vocab_size", 0))
    new = list(tokenizer.get("new_tokens", ()))
    if options.adapter is not None:
        _refuse_untrained(new, str(tokenizer.get("pad_token")), tokens > rows)
        return
    if tokens - len(new) > rows:
        return  # the tokenizer of another model: its ids are refused by name where the data uses them
    wanted = -(-tokens // 32) * 32 if options.resize_token_embeddings_to_32x else tokens
    if wanted > rows or (options.shrink_embeddings and wanted < rows and tokens):
        model.resize_token_embeddings(wanted, mean_resizing=options.mean_resizing_embeddings)


def _refuse_untrained(new: list[str], pad_token: str, needs_rows: bool) -> None:
    """An adapter trains no embedding row. Padding needs none that is trained, but it needs one."""
    untrained = [token for token in new if token != pad_token]
    remedy = "Train without an adapter, or give the texts to reserved tokens with added_tokens_overrides."
    if untrained:
        raise RegrowError(
            f"The tokenizer has new tokens ({', '.join(untrained)}), whose embedding and output rows an adapter would leave untrained.",
            remedy,
        )
    if new and needs_rows:
        raise RegrowError(
            f"The new padding token {pad_token!r} needs a row in the embedding, which an adapter cannot add.",
            "Set special_tokens.pad_token to a token that the tokenizer has, or leave it out.",
        )
