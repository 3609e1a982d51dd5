"""pack: which rows are trained and evaluated, in what order, and which of them share a sequence.

Reads data/tokens and data/dedupe; writes data/packed (see :mod:`pipeline.bins`): an index, megabytes for any corpus,
with the digest of the token stream it plans. Nothing is tokenized or copied.
"""

from __future__ import annotations

from pipeline.options.views import PackOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[PackOptions]) -> Metrics:
    """Apply the length policy, split, shuffle, pack."""
    from stages.pack.plan import write_plan

    return write_plan(job)


STAGE = Stage("pack", PackOptions, reads=("tokens", "dedupe"), writes=("packed",), run=run)
