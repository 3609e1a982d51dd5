"""dedupe: which rows stay, and for each row that goes, why and what it duplicates.

Reads data/tokens, and data/tokenizer to show rows as text. Writes data/dedupe:

``index.arrow``
    one record per token row, see :mod:`pipeline.kept`.
``report.json``
    what was removed, by reason and by the sources of both rows; sizes of clusters; what of each benchmark is in the training rows.
``report.html``
    the same to read, with removed rows beside the rows that they repeat.
"""

from __future__ import annotations

from pipeline.options.views import DedupeOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[DedupeOptions]) -> Metrics:
    """Mark the rows that are asked for; keep every row otherwise."""
    from pipeline.digest import canonical_json
    from pipeline.tokens import TokenTable
    from stages.dedupe.page import page
    from stages.dedupe.removal import remove_rows
    from stages.dedupe.report import Report
    from stages.dedupe.roles import Roles

    tokens, sources = TokenTable(job.inputs["tokens"].path), job.inputs["tokens"].content["sources"]
    roles = Roles.of(tokens, sources)
    removal = remove_rows(job.options, tokens, roles, job.progress)
    report, folder = Report(job.options, tokens, sources, roles, removal), job.outputs["dedupe"].path
    removal.index.save(folder / "index.arrow")
    facts = report.facts()
    (folder / "report.json").write_text(canonical_json(facts), encoding="utf-8")
    (folder / "report.html").write_text(page(report, facts, job.inputs["tokenizer"].path), encoding="utf-8")
    counts = report.counts()
    job.outputs["dedupe"].describe(**counts)
    for line in report.remarks():
        job.progress.say(line)
    return counts


STAGE = Stage("dedupe", DedupeOptions, reads=("tokens", "tokenizer"), writes=("dedupe",), run=run)
