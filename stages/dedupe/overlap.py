"""Training rows that hold a row of `dedupe.against`, or are held by one: contamination.

Two rows are compared by the n-grams they share, as a part of those of the one and of those of the other: a benchmark's question
inside a long text is all of the question and little of the text. n-grams that many rows of a benchmark have are its template
(GPT-3, Brown et al. 2020, appendix C, leaves out those of more than ten documents) and do not count, nor do those of most rows of a
training source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.kept import OVERLAP, KeptRows
from pipeline.options.deduplication import Overlap
from pipeline.progress import Progress
from pipeline.tokens import TokenTable
from stages.dedupe.hashing import HashSet
from stages.dedupe.ngrams import NGrams
from stages.dedupe.roles import APART, TRAINING, Roles
from stages.dedupe.template import rows_with, template_of

_MOST_ROWS, _MOST_SHARE, _MOST_OF_TRAINING = 10, 0.1, 0.5


@dataclass(frozen=True)
class Contamination:
    """What of the rows held apart occurs in training rows, before any is removed. The columns are by row held apart.

    Attributes:
        row: int64 ``[rows held apart]``, rows of the token table.
        found: float64, share of its n-grams that occur in some training row.
        nearest: int64, the training row that shares most with it, -1 for none.
        of_it: float64, share of its n-grams that occur in that row.
        of_nearest: float64, share of that row's n-grams that occur in it.
        removed: int64, training rows removed because of it.
        template: n-grams that did not count.
    """

    row: np.ndarray
    found: np.ndarray
    nearest: np.ndarray
    of_it: np.ndarray
    of_nearest: np.ndarray
    removed: np.ndarray
    template: int


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a training row and a place in the rows held apart that share n-grams, and the shares of either."""

    training: np.ndarray
    apart: np.ndarray
    of_training: np.ndarray
    of_apart: np.ndarray


def remove_overlapping(index: KeptRows, tokens: TokenTable, roles: Roles, options: Overlap, progress: Progress) -> Contamination:
    """Remove every training row that shares ``options.limit`` of its n-grams, or of theirs, with a row held apart."""
    apart, training = roles.rows(APART), roles.rows(TRAINING)
    plain = NGrams(tokens, options.ngram)
    known_to_many = [_template(plain, tokens, apart), template_of(plain, tokens, training, _MOST_OF_TRAINING)]
    template = HashSet(np.concatenate([one.values for one in known_to_many]))
    ngrams = NGrams(tokens, options.ngram, template)
    sets = [ngrams.of_row(row) for row in apart.tolist()]
    known = HashSet(np.concatenate([np.zeros(0, np.uint64), *sets]))
    place = np.repeat(np.arange(len(apart)), [len(one) for one in sets])
    posting = np.searchsorted(known.values, np.concatenate([np.zeros(0, np.uint64), *sets]))
    hits, sizes = _hits(ngrams, known, training, progress)
    pairs = _pairs(hits, sizes, place, posting, len(known))
    share = np.maximum(pairs.of_apart, pairs.of_training)
    worst = _first_of(pairs.training, np.lexsort((pairs.apart, -share, pairs.training)))
    worst = worst[share[worst] >= options.limit]
    index.remove(training[pairs.training[worst]], OVERLAP, apart[pairs.apart[worst]], share[worst])
    nearest = _first_of(pairs.apart, np.lexsort((pairs.training, -share, pairs.apart)))
    found = np.zeros(len(known), bool)
    found[hits[1]] = True
    return Contamination(
        apart,
        np.bincount(place, found[posting], len(apart)) / np.bincount(place, minlength=len(apart)),
        _spread(apart, pairs.apart[nearest], training[pairs.training[nearest]], -1),
        _spread(apart, pairs.apart[nearest], pairs.of_apart[nearest], 0.0),
        _spread(apart, pairs.apart[nearest], pairs.of_training[nearest], 0.0),
        np.bincount(pairs.apart[worst], minlength=len(apart)),
        len(template),
    )


def _template(ngrams: NGrams, tokens: TokenTable, apart: np.ndarray) -> HashSet:
    """n-grams in many different rows of one source held apart: in two or more, and a tenth of them or ten."""
    found = [np.zeros(0, np.uint64)]
    for source in np.unique(tokens.source[apart]):
        own = apart[tokens.source[apart] == source]
        _, firsts = np.unique(tokens.digest[own, 0], return_index=True)
        hashes, counts = rows_with(ngrams, own[firsts])
        found.append(hashes[counts > max(1, min(_MOST_ROWS, _MOST_SHARE * len(firsts)))])
    return HashSet(np.concatenate(found))


def _hits(ngrams: NGrams, known: HashSet, rows: np.ndarray, progress: Progress) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Places in ``rows`` with the numbers of known n-grams they have, once each; and how many different n-grams each row has.

    Only rows with a hit are counted, the others have 0. Chunk by chunk, in memory that grows with the hits alone.
    """
    places, numbers, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], np.zeros(len(rows), np.int64)
    with progress.task("overlap", total=len(rows)) as task:
        for part in ngrams.chunks(rows):
            hashes, offsets = ngrams.of(rows[part])
            at, number = known.find(hashes)
            place = np.searchsorted(offsets, at, "right") - 1
            pairs = np.unique(place * len(known) + number)
            places.append(pairs // len(known) + part.start if len(known) else pairs)
            numbers.append(pairs % len(known) if len(known) else pairs)
            for one in np.unique(place).tolist():
                sizes[part.start + one] = len(np.unique(hashes[offsets[one] : offsets[one + 1]]))
            task.advance(part.stop - part.start)
    return (np.concatenate(places), np.concatenate(numbers)), sizes


def _pairs(hits: tuple[np.ndarray, np.ndarray], sizes: np.ndarray, place: np.ndarray, posting: np.ndarray, known: int) -> _Pairs:
    """Join hits (training row, n-gram) with postings (row held apart, n-gram)."""
    training, number = hits
    by_number = np.argsort(posting, kind="stable")
    holders, counts = place[by_number], np.bincount(posting, minlength=known)
    begins = np.cumsum(counts) - counts
    repeats = counts[number]
    at = np.repeat(begins[number] - np.cumsum(repeats) + repeats, repeats) + np.arange(int(repeats.sum()))
    apart_sizes = np.bincount(place)
    joined, shared = np.unique(np.repeat(training, repeats) * max(1, len(apart_sizes)) + holders[at], return_counts=True)
    one, other = joined // max(1, len(apart_sizes)), joined % max(1, len(apart_sizes))
    return _Pairs(one, other, shared / sizes[one], shared / apart_sizes[other])


def _first_of(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Of indices sorted by group, the first of each group."""
    ordered = group[order]
    return np.asarray(order[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)]])


def _spread(rows: np.ndarray, places: np.ndarray, values: np.ndarray, default: float) -> np.ndarray:
    """``values`` at ``places`` of a column as long as ``rows``, ``default`` elsewhere."""
    column = np.full(len(rows), default, values.dtype)
    column[places] = values
    return column
