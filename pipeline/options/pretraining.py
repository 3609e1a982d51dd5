"""Training on plain text that is streamed."""

from __future__ import annotations

from pydantic import ConfigDict

from pipeline.options.datasets import DatasetEntry
from pipeline.options.row_format import RowFormat
from pipeline.options.schema import Group, not_yet, renamed


class PretrainingEntry(DatasetEntry):
    """An entry of `pretraining_dataset`: a dataset entry with some keys of its own and other defaults."""

    model_config = ConfigDict(extra="forbid")

    path: str = not_yet("A hub dataset id or a local file.", ..., min_length=1)
    name: str | list[str] | None = not_yet("Configuration of a hub dataset.")
    split: str | None = not_yet("Split of the dataset.", "train")
    data_files: str | list[str] | None = not_yet("Files of a hub dataset to take.")
    trust_remote_code: bool | None = not_yet("Run code that comes with a hub dataset.", False)
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
