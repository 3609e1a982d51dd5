"""tokenize: rows become token ids, a loss mask and their provenance, whole: neither truncated nor packed.

Reads data/raw and data/tokenizer; writes data/tokens (see :mod:`pipeline.tokens`) with ``rejected.jsonl`` beside the
shards: each row that could not be used, with its file, row number and reason.
"""

from __future__ import annotations

from pipeline.options.views import TokenizeOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[TokenizeOptions]) -> Metrics:
    """Tokenize every row of every source, in config order."""
    from stages.tokenize.corpus import tokenize_sources

    return tokenize_sources(job)


STAGE = Stage("tokenize", TokenizeOptions, reads=("raw", "tokenizer"), writes=("tokens",), run=run)
