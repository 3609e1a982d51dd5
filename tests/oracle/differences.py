"""All differences that the runner can name. Each has a section of that name in docs/differences.md with the reason."""

from __future__ import annotations

from tests.oracle.left_out import BAD_ROWS, FURTHER, MISSING
from tests.oracle.masks import MASKS
from tests.oracle.readings import READINGS, UNKNOWN
from tests.oracle.stops import STOPS

NAMES = frozenset({*MASKS, *MISSING, *BAD_ROWS, *FURTHER, *READINGS, UNKNOWN, *STOPS, "seam-of-prompt-and-answer"})
