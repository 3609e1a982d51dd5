"""Tied embeddings: one stored tensor that is both the input embedding and the output head.

An adapter trains the two ends apart, so what the model computed may need two tensors. peft's ``merge_and_unload``
adds the updates of both ends to the one shared tensor, which is another model than the one that was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries
from stages.merge.changes import Adapter
from stages.merge.checkpoint import Checkpoint


@dataclass(frozen=True)
class Tie:
    """Names of the stored tensor and of the one that is made from it."""

    embedding: str
    head: str


def find_tie(folder: Path, base: Checkpoint) -> Tie | None:
    """The tie of the model in ``folder`` as its transformers class declares it, or None when the ends are separate.

    Raises:
        RegrowError: a model type that transformers does not know, or stored ends that contradict the configuration.
    """
    quiet_libraries()
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (OSError, ValueError, KeyError) as error:
        raise RegrowError(f"{folder / 'config.json'} names no causal language model of transformers: {error}.") from None
    if not config.tie_word_embeddings:
        return None
    tied: dict[str, str] = model_class._tied_weights_keys or {}
    tie = next((Tie(source, target) for target, source in tied.items() if source in base), None)
    if tie and tie.head in base and not base.read(tie.head).equal(base.read(tie.embedding)):
        raise RegrowError(
            f"{folder / 'config.json'} says tie_word_embeddings, but {tie.head} and {tie.embedding} differ.",
            "Set tie_word_embeddings to false there, or remove one of them.",
        )
    return tie


def must_untie(tie: Tie, base: Checkpoint, adapter: Adapter) -> bool:
    """Whether the merged model needs a head of its own."""
    if not {tie.embedding, tie.head} & adapter.changes.keys() or adapter.same_update(tie.embedding, tie.head):
        return False
    stored = base.read(tie.embedding)
    if adapter.shape(tie.embedding, stored.shape) != adapter.shape(tie.head, stored.shape):
        return True
    return not adapter.apply(tie.embedding, stored).equal(adapter.apply(tie.head, stored))
