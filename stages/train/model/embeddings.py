"""The embedding matrix follows the tokenizer: one row per token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions


def fit_embeddings(model: Any, options: TrainOptions, tokenizer: Mapping[str, Any]) -> None:
    """Add rows for tokens that fetch added, or round and shrink as the options ask. New rows are seeded with the model.

    Args:
        tokenizer: what the manifest of ``data/tokenizer`` says: ``vocab_size``, ``new_tokens``, ``pad_token``.

    Raises:
        RegrowError: new tokens together with an adapter that does not train their rows.
    """
    rows, tokens = model.get_input_embeddings().num_embeddings, int(tokenizer.get("vocab_size", 0))
    new = list(tokenizer.get("new_tokens", ()))
    if options.adapter is not None:
        _refuse_untrained(model, options, new, tokens, str(tokenizer.get("pad_token")))
    if tokens - len(new) > rows:
        return  # the tokenizer of another model: its ids are refused by name where the data uses them
    wanted = -(-tokens // 32) * 32 if options.resize_token_embeddings_to_32x else tokens
    if wanted > rows or (options.shrink_embeddings and wanted < rows and tokens):
        model.resize_token_embeddings(wanted, mean_resizing=options.mean_resizing_embeddings)


def _refuse_untrained(model: Any, options: TrainOptions, new: list[str], tokens: int, pad_token: str) -> None:
    """LoRA itself trains no row of its own for a token. Padding needs none that is trained."""
    ids = {tokens - len(new) + place: token for place, token in enumerate(new) if token != pad_token}
    embedding, head = _ends(model)
    tied = bool(model.config.tie_word_embeddings)
    lacking = [end for end in (embedding, head) if not ids.keys() <= _trained_rows(options, end, tokens, embedding, tied)]
    if not lacking:
        return
    numbers = sorted(ids)
    either = f"[{embedding}, {head}]"
    indices = str(numbers) if tied else f"{{{embedding}: {numbers}, {head}: {numbers}}}"
    names, where = ", ".join(ids.values()), " and ".join(lacking)
    raise RegrowError(
        f"The tokenizer has new tokens ({names}), whose rows in {where} an adapter would leave untrained.",
        f"Add `lora_modules_to_save: {either}` or `peft_trainable_token_indices: {indices}`, train without an adapter, or give the "
        "texts to reserved tokens with added_tokens_overrides.",
    )


def _ends(model: Any) -> tuple[str, str]:
    """Last parts of the names of the embedding and the output head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [next((name.rpartition(".")[2] for name, module in model.named_modules() if module is end), None) for end in ends]
    embedding = names[0] or "embed_tokens"
    return embedding, names[1] or ("lm_head" if hasattr(model, "lm_head") else embedding)


def _trained_beside(options: TrainOptions) -> tuple[list[str], Any, bool]:
    """Whole modules, token ids, and whether tied ends stay tied; those of an adapter that is continued stand in its own file."""
    if options.lora_model_dir is None:
        return options.lora_modules_to_save or [], options.peft_trainable_token_indices or [], options.peft_ensure_weight_tying
    config = json.loads((Path(options.lora_model_dir).expanduser() / "adapter_config.json").read_text(encoding="utf-8"))
    return config.get("modules_to_save") or [], config.get("trainable_token_indices") or [], bool(config.get("ensure_weight_tying"))


def _trained_rows(options: TrainOptions, end: str, tokens: int, embedding: str, tied: bool) -> set[int]:
    """Rows that the options train at one end; tied ends share what PEFT trains once."""
    modules, given, ensured = _trained_beside(options)
    saved = {name.rpartition(".")[2] for name in modules}
    if end in saved or (tied and ensured and embedding in saved):
        return set(range(tokens))
    by_end = {name.rpartition(".")[2]: set(ids) for name, ids in given.items()} if isinstance(given, dict) else {embedding: set(given)}
    return by_end.get(end, by_end.get(embedding, set()) if tied else set())
