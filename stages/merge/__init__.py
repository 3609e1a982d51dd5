"""merge: fold a trained adapter into its base model, one tensor at a time, or pass a fully trained model on.

Reads ``base`` and ``trained``. Writes ``merged``: a plain Hugging Face model directory with config.json, safetensors
weights (and their index when there are several files), generation_config.json, the tokenizer that was trained with, the model card.
The model is not built, so peak memory is about one file of weights, whatever the size of the model; except for adapters of
stacked experts that the base stores one by one, which peft merges in memory.
"""

from __future__ import annotations

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError, StaleInput
from pipeline.options.views import MergeOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[MergeOptions]) -> Metrics:
    """Merge, or pass on, what ``trained`` says it holds: ``content["kind"]`` is ``adapter`` or ``full``.

    Raises:
        RegrowError: an adapter that cannot be merged exactly, or tensors that do not fit the base.
    """
    from stages.merge.model import merge_adapter, pass_through

    trained, draft = job.inputs["trained"], job.outputs["merged"]
    limit = job.options.merge.max_shard_size_mb * 1_000_000
    kind = trained.content.get("kind")
    if kind == "full":
        facts = pass_through(trained.path, draft.path, limit, job.progress)
    elif kind == "adapter":
        base = _base_of(trained, job.inputs["base"])
        facts = merge_adapter(base.path, trained.path, draft.path, limit, job.progress)
    else:
        raise RegrowError(f"{trained.path} says it holds {kind!r}; merge knows 'adapter' and 'full'.")
    draft.describe(kind=kind, **facts)
    return facts


def _base_of(trained: Artifact, base: Artifact) -> Artifact:
    """An adapter added to other weights than it was trained on is noise that still loads."""
    if trained.inputs.get("base", base.digest) != base.digest:
        raise StaleInput(f"{trained.path} was trained on another base than {base.path}.", "Run `dvc repro`: it trains again.")
    return base


STAGE = Stage("merge", MergeOptions, reads=("base", "trained"), writes=("merged",), run=run)
