"""dedupe: which rows stay, and for each row that goes, why and what it duplicates.

Reads data/tokens; writes data/dedupe: ``index.arrow`` with one record per token row.
"""

from __future__ import annotations

from pipeline.options.views import DedupeOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[DedupeOptions]) -> Metrics:
    """Mark exact duplicates if asked to; keep every row otherwise."""
    import numpy as np

    from pipeline.kept import KeptRows
    from pipeline.tokens import TokenTable
    from stages.dedupe.exact import find_duplicates

    tokens = TokenTable(job.inputs["tokens"].path)
    is_test = np.asarray([source["split"] == "test" for source in job.inputs["tokens"].content["sources"]], bool)
    wanted = job.options.dataset_exact_deduplication
    index = find_duplicates(tokens.digest, is_test[tokens.source]) if wanted else KeptRows.all_of(len(tokens))
    index.save(job.outputs["dedupe"].path / "index.arrow")
    counts = {"rows": len(tokens), "kept": int(index.keep.sum()), "removed": index.removed()}
    job.outputs["dedupe"].describe(**counts)
    return counts


STAGE = Stage("dedupe", DedupeOptions, reads=("tokens",), writes=("dedupe",), run=run)
