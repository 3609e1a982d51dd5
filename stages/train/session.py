"""One training run from artifacts to data/trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer

from pipeline.bins import Bins
from pipeline.errors import Interrupted, RegrowError, StaleInput
from pipeline.models import quiet_libraries
from pipeline.options.views import TrainOptions
from pipeline.progress import Progress
from pipeline.stage import Job, Metrics
from pipeline.tokens import TokenTable
from stages.train.arguments import training_arguments
from stages.train.callbacks import CompleteCheckpoints, SetEpoch, ShowProgress, StopOnRequest
from stages.train.checkpoints import newest_complete, remove_incomplete, step_of
from stages.train.counts import BinCounts, SeenTokens, count_bins
from stages.train.data import BinDataset, EpochOrder
from stages.train.isolation import check_isolation
from stages.train.log import log_lines, write_log
from stages.train.model import build_model
from stages.train.output import copy_tokenizer, write_adapter, write_full
from stages.train.precision import Precision, choose_precision
from stages.train.schedule import Schedule, plan_schedule
from stages.train.stopping import watch_signals
from stages.train.trainer import BinTrainer
