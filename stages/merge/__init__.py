"""merge: fold a trained adapter into its base model, one tensor at a time, or pass a fully trained model on.

Reads ``base`` and ``trained``, ``others`` where several are merged, and rows of ``tokens`` that ``packed`` names, on which the result
must compute what was trained. Writes ``merged``: a plain Hugging Face model directory with config.json, safetensors weights (and their
index when there are several files), generation_config.json, the tokenizer that was trained with, the model card.
The model is not built, so peak memory is a few times the largest tensor, whatever the size of the model; except for adapters of
stacked experts that the base stores one by one, which peft merges in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError, StaleInput
from pipeline.options.views import MergeOptions
from pipeline.stage import Job, Metrics, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from stages.merge.plan import Plan
    from stages.merge.rows import Rows


def run(job: Job[MergeOptions]) -> Metrics:
    """Merge, or pass on, what ``trained`` says it holds: ``content["kind"]`` is ``adapter`` or ``full``.

    Raises:
        RegrowError: an adapter that cannot be merged exactly, or tensors that do not fit the base.
    """
    trained, kind = job.inputs["trained"], job.inputs["trained"].content.get("kind")
    if kind not in ("full", "adapter"):
        raise RegrowError(f"{trained.path} says it holds {kind!r}; merge knows 'adapter' and 'full'.")
    merges = _merge_several if job.options.merge.method is not None else _merge_adapter if kind == "adapter" else _pass_on
    facts = merges(job)
    job.outputs["merged"].describe(kind=kind, **facts)
    return facts


def _merge_several(job: Job[MergeOptions]) -> Metrics:
    from stages.merge.several.model import merge_several

    trained, draft = job.inputs["trained"], job.outputs["merged"]
    base = _base_of(trained, job.inputs["base"])
    facts = merge_several(job.options.merge, base, trained, job.inputs["others"], draft.path, job.progress)
    return facts | {"parity": {"absent": "of several models merged there is no unmerged form to compare with"}}


def _pass_on(job: Job[MergeOptions]) -> Metrics:
    from stages.merge.model import pass_through

    facts = pass_through(job.inputs["trained"].path, job.outputs["merged"].path, _file_size(job), job.progress)
    return facts | {"parity": {"absent": "the weights themselves were trained: there is no adapter to compare with"}}


def _merge_adapter(job: Job[MergeOptions]) -> Metrics:
    from stages.merge.by_peft import merge_with_peft
    from stages.merge.model import merge_adapter
    from stages.merge.plan import plan_merge
    from stages.merge.rows import first_rows

    trained, merged = job.inputs["trained"].path, job.outputs["merged"].path
    base = _base_of(job.inputs["trained"], job.inputs["base"]).path
    plan = plan_merge(base, trained)
    rows = first_rows(job.inputs["tokens"].path, job.inputs["packed"].path, job.options.merge.parity_rows)
    if plan.renamed is None:
        facts, unrounded = merge_adapter(plan, base, trained, merged, _file_size(job), job.progress), None
    else:
        facts, unrounded = merge_with_peft(plan, base, trained, merged, _file_size(job), job.progress, rows)
    return facts | {"parity": _compare(job, plan, rows, unrounded)}


def _compare(job: Job[MergeOptions], plan: Plan, rows: Rows | None, unrounded: list[Tensor] | None) -> dict[str, Any]:
    """The merged model with what it was merged from; what was measured goes to the record of the run."""
    from stages.merge.parity import check_parity

    if job.options.merge.parity_rows == 0:
        return {"absent": "merge.parity_rows is 0"}
    if rows is None:
        return {"absent": "no row holds a token"}
    job.progress.say(f"Comparing the merged model with base and adapter on {len(rows.ids)} rows.")
    parity = check_parity(
        plan, job.inputs["base"].path, job.inputs["trained"].path, job.outputs["merged"].path, rows, job.scratch, unrounded
    )
    job.observed["parity"] = parity.measured()
    return parity.facts()


def _file_size(job: Job[MergeOptions]) -> int:
    return job.options.merge.max_shard_size_mb * 1_000_000


def _base_of(trained: Artifact, base: Artifact) -> Artifact:
    """An adapter added to other weights than it was trained on is noise that still loads."""
    if trained.inputs.get("base", base.digest) != base.digest:
        raise StaleInput(f"{trained.path} was trained on another base than {base.path}.", "Run `dvc repro`: it trains again.")
    return base


STAGE = Stage("merge", MergeOptions, reads=("base", "trained", "others", "tokens", "packed"), writes=("merged",), run=run)
