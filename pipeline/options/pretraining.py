"""Training on plain text that is streamed (C11)."""

from __future__ import annotations

from pydantic import ConfigDict

from pipeline.options.datasets import DatasetEntry
from pipeline.options.row_format import RowFormat
from pipeline.options.schema import Group, not_yet, renamed


class PretrainingEntry(DatasetEntry):
    """An entry of `pretraining_dataset`: a dataset entry with two keys of its own and other defaults."""

    model_config = ConfigDict(extra="forbid")

    type: str | RowFormat = not_yet("How a document becomes rows; default pretrain.", "pretrain")
    text_column: str | None = not_yet("The column that holds the text.", "text")
    skip: int | None = not_yet("Documents to leave out at the beginning.", idle=(0,), ge=0)


class PretrainingSources(Group):
    """Read by fetch."""

    pretraining_dataset: str | list[PretrainingEntry] | None = not_yet(
        "What to pretrain on: a hub dataset id or entries; replaces datasets.", min_length=1
    )


class Streaming(Group):
    """Read by tokenize and pack."""

    streaming: bool | None = not_yet("Read the dataset while it is trained on, without knowing its length; needs max_steps.")
    streaming_multipack_buffer_size: int | None = not_yet("Rows that are packed together while streaming.", 10000, idle=(), ge=1)
    pretraining_sample_concatenation: bool | None = not_yet(
        "Join documents to rows of sequence_len, with an end token between them.", idle=()
    )
    pretrain_multipack_attn: bool | None = not_yet("Keep joined documents from attending to each other.", True, idle=())
    pretrain_multipack_buffer_size: int | None = renamed("streaming_multipack_buffer_size")
