"""Rules between options: small pure functions, all in one list.

A rule takes the options and yields what breaks it: which keys, what is wrong, what would work. A rule about options that
are not supported yet is checked all the same: it holds as soon as they are.
"""

from __future__ import annotations

from pipeline.options.rules.adapter import ADAPTER
from pipeline.options.rules.advice import ADVICE
from pipeline.options.rules.broken import Broken, Rule
from pipeline.options.rules.cadence import CADENCE
from pipeline.options.rules.comparisons import COMPARISONS
from pipeline.options.rules.data import DATA
from pipeline.options.rules.duplicates import DUPLICATES
from pipeline.options.rules.entries import ENTRIES
from pipeline.options.rules.evaluation import EVALUATION
from pipeline.options.rules.fsdp import FSDP
from pipeline.options.rules.learning import LEARNING
from pipeline.options.rules.machine import MACHINE
from pipeline.options.rules.merging import MERGING
from pipeline.options.rules.model import MODEL
from pipeline.options.rules.online import ONLINE
from pipeline.options.rules.optimizer import OPTIMIZER
from pipeline.options.rules.packing import PACKING
from pipeline.options.rules.preference import PREFERENCE
from pipeline.options.rules.quantization import QUANTIZATION
from pipeline.options.rules.schedule import SCHEDULE
from pipeline.options.rules.sharding import SHARDING
from pipeline.options.rules.sources import SOURCES
from pipeline.options.rules.tokenizer import TOKENIZER

RULES: tuple[Rule, ...] = (
    *SOURCES,
    *TOKENIZER,
    *DATA,
    *DUPLICATES,
    *ENTRIES,
    *PACKING,
    *CADENCE,
    *EVALUATION,
    *LEARNING,
    *OPTIMIZER,
    *SCHEDULE,
    *ADAPTER,
    *MODEL,
    *MACHINE,
    *SHARDING,
    *FSDP,
    *PREFERENCE,
    *COMPARISONS,
    *ONLINE,
    *MERGING,
    *QUANTIZATION,
)
"""Broken, the file is refused."""

__all__ = ["ADVICE", "RULES", "Broken", "Rule"]
