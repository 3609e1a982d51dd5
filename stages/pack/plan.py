"""From rows to bins: length policy, split, order, packing, and the numbers that say how good the packing is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.bins import Bins
from pipeline.errors import RegrowError
from pipeline.kept import KeptRows
from pipeline.options.views import PackOptions
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenTable
from stages.pack.best_fit import best_fit_decreasing
from stages.pack.next_fit import next_fit
from stages.pack.select import Selection, Spans, select_rows


def write_plan(job: Job[PackOptions]) -> Metrics:
    """Write ``train.arrow`` and ``eval.arrow`` and describe them."""
    options, draft = job.options, job.outputs["packed"]
    tokens = TokenTable(job.inputs["tokens"].path)
    kept = KeptRows.load(job.inputs["dedupe"].path / "index.arrow")
    sources = job.inputs["tokens"].content["sources"]
    selection = select_rows(options, tokens, kept, sources)
    plans = {
        "train": _plan(selection.train, _training_bins(options, selection.train.length)),
        "eval": _plan(selection.evaluation, _evaluation_bins(options, selection.evaluation.length)),
    }
    capacities = {"train": options.sequence_len, "eval": options.eval_sequence_len or options.sequence_len}
    facts: dict[str, Any] = {split: _statistics(bins, tokens, capacities[split]) for split, bins in plans.items()}
    _check_efficiency(options, facts["train"])
    for split, bins in plans.items():
        bins.save(draft.path / f"{split}.arrow")
    digests = {split: bins.content_digest(tokens) for split, bins in plans.items()}
    facts |= {"dropped": selection.dropped, "truncated": selection.truncated}
    draft.describe(sequence_len=options.sequence_len, sample_packing=options.sample_packing, content_digest=digests, **facts)
    _say(job, selection, facts["train"])
    return facts


def _training_bins(options: PackOptions, lengths: np.ndarray) -> np.ndarray:
    """The bin of each span, int64 ``[spans]``; one of its own where none is shared."""
    if not options.sample_packing:
        return np.arange(len(lengths))
    in_order = options.sample_packing_sequentially or options.curriculum_sampling
    return (next_fit if in_order else best_fit_decreasing)(lengths, options.sequence_len)


def _evaluation_bins(options: PackOptions, lengths: np.ndarray) -> np.ndarray:
    """Held-out rows keep their order, so that what is reported of them does not depend on their bins."""
    if not options.eval_sample_packing:
        return np.arange(len(lengths))
    return next_fit(lengths, options.eval_sequence_len or options.sequence_len)


def _plan(spans: Spans, bins: np.ndarray) -> Bins:
    """Bins over ``spans``, each in its bin of ``bins``, int64 ``[spans]``; within a bin in the given order."""
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins, minlength=int(bins.max(initial=-1)) + 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    taken = spans.take(order)
    return Bins(offsets, taken.row, taken.start.astype(np.int32), taken.length.astype(np.int32))


def _statistics(bins: Bins, tokens: TokenTable, capacity: int) -> dict[str, Any]:
    total, trained = int(bins.length.sum()), int(tokens.count_trained(bins.row, bins.start, bins.length).sum())
    return {
        "bins": len(bins),
        "rows": len(bins.row),
        "tokens": total,
        "trained_tokens": trained,
        "efficiency": round(total / (len(bins) * capacity), 6) if len(bins) else 1.0,
        "lower_bound_bins": -(-total // capacity),
        "longest": int(bins.length.max(initial=0)),
    }


def _check_efficiency(options: PackOptions, facts: dict[str, Any]) -> None:
    floor = options.pack.minimum_efficiency
    if facts["efficiency"] < floor:
        raise RegrowError(
            f"Packing fills {facts['efficiency']:.4f} of the training bins' capacity; pack.minimum_efficiency asks for {floor}.",
            f"Set sample_packing: true, or a sequence_len nearer to the longest row ({facts['longest']} tokens), or lower the floor.",
        )


def _say(job: Job[PackOptions], selection: Selection, train: dict[str, Any]) -> None:
    for reason, count in selection.dropped.items():
        job.progress.say(f"{count} rows left out: {reason}.")
    if selection.truncated["rows"]:
        job.progress.say(f"{selection.truncated['rows']} rows cut to sequence_len; {selection.truncated['tokens']} tokens lost.")
    job.progress.say(
        f"{train['rows']} training rows, {train['tokens']} tokens in {train['bins']} bins: "
        f"{train['efficiency']:.1%} full, at least {train['lower_bound_bins']} bins are needed."
    )
