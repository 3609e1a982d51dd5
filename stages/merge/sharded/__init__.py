"""`regrow merge --sharded`: checkpoints that training wrote in pieces, one for each process, become a plain model directory.

No stage: what it reads and writes belongs to nobody but who asks for it. No pickle of such a checkpoint is ever executed: see
:mod:`stages.merge.sharded.fsdp` and :mod:`stages.merge.sharded.zero`.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.progress import Progress


def merge_sharded(shards: Path, output: Path, base: Path, tokenizer: Path | None, limit: int, progress: Progress) -> str:
    """Write the model and say what was written.

    Args:
        shards: an FSDP or ZeRO checkpoint, or a folder that holds one.
        output: a folder that is not there yet, or is empty.
        base: the model it was trained from: names, shapes, dtype and configuration.
        tokenizer: folder of the tokenizer, or None.
        limit: largest file of weights in bytes.

    Raises:
        RegrowError: no such checkpoint, one that is not complete, or one of another model.
    """
    from stages.merge.sharded.model import write_model

    return write_model(shards, output, base, tokenizer, limit, progress)
