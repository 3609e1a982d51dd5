"""From rows to bins: length policy, split, order, packing, and the numbers that say how good the packing is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.bins import Bins, Skips
from pipeline.errors import RegrowError
from pipeline.kept import KeptRows
from pipeline.options.views import PackOptions
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenTable
from stages.pack.assign import evaluation_bins, training_bins
from stages.pack.picture import draw_bins
from stages.pack.select import Spans, select_rows
from stages.pack.skips import draw_skips
from stages.pack.sort import stable_order
from stages.pack.statistics import bin_facts, source_facts

PICTURE = "lengths.svg"


def write_plan(job: Job[PackOptions]) -> Metrics:
    """Write ``train.arrow``, ``eval.arrow`` and a picture of both, and describe them."""
    options, draft = job.options, job.outputs["packed"]
    tokens = TokenTable(job.inputs["tokens"].path)
    kept = KeptRows.load(job.inputs["dedupe"].path / "index.arrow")
    sources = job.inputs["tokens"].content["sources"]
    selection = select_rows(options, tokens, kept, sources)
    skips = draw_skips(options, selection.train, tokens) if options.use_pose else None
    plans = {
        "train": lay_out(selection.train, training_bins(options, selection.train.length), skips),
        "eval": lay_out(selection.evaluation, evaluation_bins(options, selection.evaluation.length)),
    }
    facts: dict[str, Any] = {split: _describe(options, split, bins, tokens) for split, bins in plans.items()}
    _check_efficiency(options, facts["train"])
    for split, bins in plans.items():
        bins.save(draft.path / f"{split}.arrow")
    selection.account.left_out().save(draft.path / "left_out.arrow")
    (draft.path / PICTURE).write_text(draw_bins(plans["train"], tokens.source, sources, options.sequence_len), encoding="utf-8")
    digests = {split: bins.content_digest(tokens) for split, bins in plans.items()}
    by_source = source_facts(plans, tokens, kept, selection.account, sources)
    facts |= selection.account.totals()
    draft.describe(
        sequence_len=options.sequence_len, sample_packing=options.sample_packing, content_digest=digests, sources=by_source, **facts
    )
    _say(job, facts)
    return facts


def lay_out(spans: Spans, bins: np.ndarray, skips: Skips | None = None) -> Bins:
    """Bins over ``spans``, each in its bin of ``bins``, int64 ``[spans]``; within a bin in the given order."""
    order = stable_order(bins)
    counts = np.bincount(bins, minlength=int(bins.max(initial=-1)) + 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    row, start, length = spans.row, spans.start.astype(np.int32), spans.length.astype(np.int32)
    return Bins(offsets, row[order], start[order], length[order], None if skips is None else skips.take(order))


def _describe(options: PackOptions, split: str, bins: Bins, tokens: TokenTable) -> dict[str, Any]:
    held_out = split == "eval"
    capacity = (options.eval_sequence_len if held_out else None) or options.sequence_len
    packed = options.eval_sample_packing if held_out else options.sample_packing
    facts = bin_facts(bins, tokens, capacity, options.sample_packing_bin_size if packed else None)
    if bins.skips is not None:
        facts["skips"] = {"spans": int(np.count_nonzero(np.diff(bins.skips.offsets))), "positions": int(bins.skips.by.sum())}
    return facts


def _check_efficiency(options: PackOptions, facts: dict[str, Any]) -> None:
    floor = options.pack.minimum_efficiency
    if facts["efficiency"] < floor:
        raise RegrowError(
            f"Packing fills {facts['efficiency']:.4f} of the training bins' capacity; pack.minimum_efficiency asks for {floor}.",
            f"Set sample_packing: true, or a sequence_len nearer to the longest row ({facts['longest']} tokens), or lower the floor.",
        )


def _say(job: Job[PackOptions], facts: dict[str, Any]) -> None:
    train, truncated, limit = facts["train"], facts["truncated"], job.options.sample_packing_bin_size
    for reason, count in facts["dropped"].items():
        job.progress.say(f"{count} rows left out: {reason}.")
    if truncated["rows"]:
        job.progress.say(f"{truncated['rows']} rows cut to sequence_len; {truncated['tokens']} tokens lost.")
    job.progress.say(
        f"{train['rows']} training rows, {train['tokens']} tokens in {train['bins']} bins: "
        f"{train['efficiency']:.1%} full, at least {train['lower_bound_bins']} bins are needed."
    )
    if job.options.sample_packing and limit and train["rows"] * job.options.sequence_len > train["tokens"] * limit:
        job.progress.say(f"A bin would hold more than {limit} rows of this length: a larger sample_packing_bin_size makes fewer bins.")
