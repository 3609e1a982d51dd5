"""Merging with peft itself, in memory, where the base's files hold other tensors than the model that transformers makes of them.

Mixture-of-experts models are stored one expert at a time and computed as one stack. An adapter of that stack cannot be
added file by file; the model is loaded whole in float32, merged, rounded once to the dtype it is stored in, and written as
transformers stores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import RegrowError
from pipeline.models import load_causal_lm
from pipeline.progress import Progress
from stages.merge.card import copy_card
from stages.merge.changes import ADAPTER
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, write_model_config
from stages.merge.plan import Plan
from stages.merge.question import Question
from stages.merge.rows import Rows


def merge_with_peft(
    plan: Plan, base: Path, trained: Path, destination: Path, limit: int, progress: Progress, rows: Rows | None
) -> tuple[dict[str, Any], list[Tensor] | None]:
    """As :func:`stages.merge.model.merge_adapter`, of an adapter that changes ``plan.renamed``, which the base's files do not hold.

    Returns:
        Facts about the result, and the merged model's logits on ``rows`` before it was rounded.

    Raises:
        RegrowError: transformers does not know that tensor either.
    """
    import torch
    from peft import PeftModel

    stored, renamed = plan.base, plan.renamed or ""
    dtype, model = stored.main_dtype(), load_causal_lm(base)
    was_tied = bool(model.config.tie_word_embeddings)
    if renamed not in dict(model.named_parameters()):
        raise RegrowError(f"{ADAPTER} changes {renamed}, which the base does not have.", "The adapter belongs to another model.")
    progress.say(f"The base's files hold {renamed.rpartition('.')[0]} in parts: merging with the whole model in memory.")
    merged: Any = PeftModel.from_pretrained(model, str(trained), torch_device="cpu").merge_and_unload()
    logits = None if rows is None else Question(rows).ask(merged.eval())
    merged.to(getattr(torch, dtype))
    merged.save_pretrained(destination, max_shard_size=limit)
    sizes = {"vocab_size": merged.config.vocab_size}
    write_model_config({**plan.config, **sizes}, destination, dtype, untied=was_tied and not merged.config.tie_word_embeddings)
    (destination / "generation_config.json").unlink(missing_ok=True)
    copy_files(base, destination, MODEL_FILES)
    copy_files(trained, destination, TOKENIZER_FILES)
    copy_card(trained, destination, merged=True)
    written = Checkpoint(destination)
    changed = sum(name not in stored or not written.read(name).equal(stored.read(name)) for name in written.shapes)
    facts = {
        "tensors": len(written.shapes),
        "parameters": sum(torch.Size(shape).numel() for shape in written.shapes.values()),
        "bytes": sum(file.stat().st_size for file in written.files),
        "files": len(written.files),
        "dtype": dtype,
        "changed": changed,
        "merged_by": "peft, in memory",
    }
    return facts, logits
