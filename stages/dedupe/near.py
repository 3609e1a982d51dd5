"""Near duplicates: candidates by MinHash, the true similarity of their n-grams decides, the first of a cluster stays.

A row is removed if and only if a row before it stays that it is similar to (and that the signatures found). So no removed row
is further than the threshold from the row that stands for it: the clusters alone would also join rows that have only relatives
in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.kept import NEAR, OVERLAP, KeptRows
from pipeline.options.deduplication import NearDuplicates
from pipeline.progress import Progress
from pipeline.tokens import TokenTable
from stages.dedupe.minhash import buckets, choose_bands, signatures
from stages.dedupe.ngrams import NGrams, similarity
from stages.dedupe.roles import APART, TRAINING, Roles
from stages.dedupe.template import template_of

Edge = tuple[int, int, float]
"""A removed row, a row that stays, and their similarity."""


@dataclass(frozen=True)
class Found:
    """What the search came to. Rows are those of the token table.

    Attributes:
        edges: every removed row with every row that stays and is similar to it, by precedence.
        candidates: pairs whose signatures were compared.
        compared: pairs whose n-grams were.
        template: n-grams that did not count.
    """

    edges: list[Edge]
    candidates: int
    compared: int
    template: int


def remove_near(
    index: KeptRows, tokens: TokenTable, roles: Roles, options: NearDuplicates, progress: Progress, workers: int | None = None
) -> Found:
    """Remove rows of ``index`` that nearly equal one that stays: of evaluation among themselves, of training any before them.

    Rows held apart are compared with training rows. ``workers``: threads that make signatures.
    """
    rows = roles.order[index.keep[roles.order] | (roles.role[roles.order] == APART)]
    template = template_of(NGrams(tokens, options.ngram), tokens, rows, options.template_share)
    ngrams, (bands, width) = NGrams(tokens, options.ngram, template), choose_bands(options.threshold, options.permutations)
    with progress.task("signatures", total=len(rows)) as task:
        signed = signatures(ngrams, rows, bands * width, task.advance, workers)
    search = _Search(rows, roles.role[rows], ngrams, options.threshold, signed, buckets(signed, bands, width))
    with progress.task("near duplicates", total=len(search.touched)) as task:
        for place in search.touched:
            search.decide(place)
            task.advance()
    _mark(index, roles, search.edges)
    return Found(search.edges, search.candidates, search.compared, len(template))


def _mark(index: KeptRows, roles: Roles, edges: list[Edge]) -> None:
    """A removed row duplicates the first of the rows that it is similar to."""
    first: dict[int, Edge] = {}
    for edge in edges:
        first.setdefault(edge[0], edge)
    for apart, reason in ((True, OVERLAP), (False, NEAR)):
        chosen = [edge for edge in first.values() if (roles.role[edge[1]] == APART) == apart]
        removed, kept, alike = (np.asarray([edge[part] for edge in chosen]) for part in range(3))
        if chosen:
            index.remove(removed, reason, kept, alike)


class _Search:
    """Goes through rows by precedence and keeps those that are unlike all kept before.

    A place is an index into ``rows`` and into ``signed``, their signatures; ``shared`` are the buckets of :func:`buckets`.
    """

    def __init__(
        self,
        rows: np.ndarray,
        role: np.ndarray,
        ngrams: NGrams,
        threshold: float,
        signed: np.ndarray,
        shared: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self._rows, self._role, self._ngrams, self._threshold, self._signed = rows, role, ngrams, threshold, signed
        place, bucket = shared
        self._bucket: list[int] = bucket.tolist()
        touched, begins, counts = np.unique(place, return_index=True, return_counts=True)
        self.touched: list[int] = touched.tolist()
        self._begins = dict(zip(self.touched, zip(begins.tolist(), (begins + counts).tolist(), strict=True), strict=True))
        self._kept: list[list[int]] = [[] for _ in range(max(self._bucket, default=-1) + 1)]
        # Five standard deviations of what the signatures can tell, and three hashes for the tail of small numbers.
        count = signed.shape[1]
        self._least = int((threshold - 5 * (threshold * (1 - threshold) / count) ** 0.5) * count) - 3
        self.edges: list[Edge] = []
        self.candidates = self.compared = 0

    def decide(self, place: int) -> None:
        """Keep a row or not; all before it are decided."""
        start, stop = self._begins[place]
        own = self._bucket[start:stop]
        others = sorted({other for bucket in own for other in self._kept[bucket]})
        alike = self._similar_to(place, others) if others and self._role[place] != APART else []
        self.edges += alike
        if not alike:
            for bucket in own:
                self._kept[bucket].append(place)

    def _similar_to(self, place: int, others: list[int]) -> list[Edge]:
        agreeing = (self._signed[others] == self._signed[place]).sum(axis=1)
        likely = [other for other, agree in zip(others, agreeing.tolist(), strict=True) if agree >= self._least]
        if self._role[place] != TRAINING:
            likely = [other for other in likely if self._role[other] != APART]
        self.candidates += len(others)
        self.compared += len(likely)
        row, found = int(self._rows[place]), []
        for stays in self._rows[likely].tolist():
            alike = similarity(self._ngrams.of_row(row), self._ngrams.of_row(stays))
            if alike >= self._threshold:
                found.append((row, stays, alike))
        return found
