"""What dedupe found, as facts: counts, sources, clusters, contamination, and which removed rows to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.kept import EXACT, NEAR, OVERLAP, REASONS
from pipeline.options.views import DedupeOptions
from pipeline.tokens import TokenTable
from stages.dedupe.clusters import cluster_sizes
from stages.dedupe.minhash import choose_bands
from stages.dedupe.overlap import Contamination
from stages.dedupe.removal import Removal
from stages.dedupe.roles import APART, EVALUATION, TRAINING, Roles

_LISTS = {"train": "datasets", "test": "test_datasets", "against": "dedupe.against"}
_MOST_LISTED = 200
_EXAMPLES = {EXACT: 3, NEAR: 12, OVERLAP: 12}


class Report:
    """All that is told about one run."""

    def __init__(
        self, options: DedupeOptions, tokens: TokenTable, sources: Sequence[Mapping[str, Any]], roles: Roles, removal: Removal
    ) -> None:
        self._options, self.tokens, self._roles, self._removal = options, tokens, roles, removal
        self.index = removal.index
        self._labels = [f"{_LISTS[source['split']]}[{int(source['name'].split('-')[1])}] {source['file']}" for source in sources]

    def counts(self) -> dict[str, Any]:
        """For the manifest and the metrics: rows that were trained or judged if nothing were removed, and what became of them."""
        apart = len(self._roles.rows(APART))
        counts = {"rows": len(self.index.keep) - apart, "kept": int(self.index.keep.sum()), "removed": self.index.removed()}
        return counts | ({"held_apart": apart} if apart else {})

    def facts(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        roles = {"training": TRAINING, "evaluation": EVALUATION, "held apart": APART}
        facts = self.counts() | {"roles": {name: self._of_role(role) for name, role in roles.items()}, "sources": self.sources()}
        if self._removal.near is not None:
            facts["near"] = self._near()
        if self._removal.contamination is not None:
            facts["against"] = self._against(self._removal.contamination)
        return facts

    def sources(self) -> list[dict[str, Any]]:
        """Rows removed, by reason, the source they are from and the source of the row they duplicate."""
        rows = np.flatnonzero(self.index.duplicate_of >= 0)
        other = self.tokens.source[self.index.duplicate_of[rows]]
        keys = zip(self.index.reason.codes[rows].tolist(), self.tokens.source[rows].tolist(), other.tolist(), strict=True)
        return [
            {"reason": REASONS[code], "removed": self._labels[one], "stays": self._labels[two], "rows": count}
            for (code, one, two), count in sorted(Counter(keys).items())
        ]

    def place(self, row: int) -> dict[str, Any]:
        """Where a row comes from: its source, and its number there from 0."""
        return {"source": self._labels[int(self.tokens.source[row])], "row": int(self.tokens.row[row])}

    def examples(self) -> Iterator[tuple[str, list[int]]]:
        """By reason, some removed rows: from the least to the most similar, in even steps."""
        rank = np.empty(len(self._roles.order), np.int64)
        rank[self._roles.order] = np.arange(len(rank))
        for reason, most in _EXAMPLES.items():
            rows = np.flatnonzero(self.index.reason.codes == REASONS.index(reason))
            rows = rows[np.lexsort((rank[rows], self.index.similarity[rows]))]
            chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
            yield reason, rows[chosen].tolist()

    def remarks(self) -> Iterator[str]:
        """What the user should know at once."""
        for reason, count in self.index.removed().items():
            yield f"{count} rows removed: {reason}."
        found = self._removal.contamination
        if found is not None and (held := int((found.removed > 0).sum())):
            yield f"{held} of {len(found.row)} rows of dedupe.against are in training rows; data/dedupe/report.html shows them."
        trained = self._roles.rows(TRAINING)
        if len(trained) and (left := int(self.index.keep[trained].sum())) < len(trained) / 2:
            yield f"warning: {left} of {len(trained)} training rows are left; data/dedupe/report.html shows what was taken for the same."

    def _of_role(self, role: int) -> dict[str, int]:
        rows = self._roles.rows(role)
        return {"rows": len(rows), "kept": int(self.index.keep[rows].sum())}

    def _near(self) -> dict[str, Any]:
        found, options = self._removal.near, self._options.dedupe.near
        assert found is not None and options is not None
        bands, width = choose_bands(options.threshold, options.permutations)
        sizes = cluster_sizes(found.edges)
        largest = sorted(sizes, key=lambda row: (-sizes[row], row))[:20]
        return options.model_dump() | {
            "bands": bands,
            "hashes_per_band": width,
            "candidate_pairs": found.candidates,
            "compared_pairs": found.compared,
            "template_ngrams": found.template,
            "clusters": {str(size): count for size, count in sorted(Counter(sizes.values()).items())},
            "largest_clusters": [self.place(row) | {"rows": sizes[row]} for row in largest],
        }

    def _against(self, found: Contamination) -> dict[str, Any]:
        limit = self._options.dedupe.overlap
        order = np.lexsort((np.arange(len(found.row)), -found.found, -np.maximum(found.of_it, found.of_nearest)))
        return limit.model_dump() | {
            "template_ngrams": found.template,
            "sources": list(self._by_source(found)),
            "rows": [self._overlapping(found, place) for place in order[:_MOST_LISTED].tolist() if found.nearest[place] >= 0],
        }

    def _by_source(self, found: Contamination) -> Iterator[dict[str, Any]]:
        """Of each source held apart: its rows; those that training rows together cover; those because of which rows went."""
        source = self.tokens.source[found.row]
        for one in np.unique(source).tolist():
            own = source == one
            yield {
                "source": self._labels[one],
                "rows": int(own.sum()),
                "covered": int((found.found[own] >= self._options.dedupe.overlap.limit).sum()),
                "overlapping": int((found.removed[own] > 0).sum()),
                "training_rows_removed": int(found.removed[own].sum()),
                "mean_share_found": round(float(found.found[own].mean()), 6),
            }

    def _overlapping(self, found: Contamination, place: int) -> dict[str, Any]:
        return self.place(int(found.row[place])) | {
            "share_found": round(float(found.found[place]), 6),
            "nearest": self.place(int(found.nearest[place])),
            "share_of_it_in_nearest": round(float(found.of_it[place]), 6),
            "share_of_nearest_in_it": round(float(found.of_nearest[place]), 6),
            "training_rows_removed": int(found.removed[place]),
        }
