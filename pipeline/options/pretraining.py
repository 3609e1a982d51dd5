"""Training on plain text, and on as many rows as a number of steps takes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from pipeline.data_files import DataFiles
from pipeline.options.datasets import DatasetFormat, FetchedDataset
from pipeline.options.row_format import RowFormat
from pipeline.options.schema import Group, not_yet, option, refused, renamed


class PretrainingFormat(DatasetFormat):
    """The part of an entry of `pretraining_dataset` that tokenize reads."""

    type: Annotated[str, Field(min_length=1)] | RowFormat | None = option("pretrain", "How a document becomes rows; default pretrain.")
    text_column: str = option("text", "The column that holds the text.", min_length=1)


class PretrainingEntry(FetchedDataset, PretrainingFormat):
    """An entry of `pretraining_dataset`: a dataset entry with some keys of its own and other defaults."""

    model_config = ConfigDict(extra="forbid")

    path: str = option(..., "A hub dataset id, a local file, or any other source of `datasets.path`.", min_length=1)
    name: str | list[str] | None = option(None, "Configuration of a hub dataset or folder, or several of them.", min_length=1)
    split: str | None = option("train", "Split of the dataset, with a slice if wanted.")
    data_files: DataFiles | None = option(
        None,
        "Files to take, by name or pattern, for each split if wanted: of a folder or hub dataset, or of the format in path.",
        min_length=1,
    )
    trust_remote_code: bool | None = refused(
        "Run code that comes with a hub dataset.", "rows are read from files, and scripts are never run", default=False
    )
    type: Annotated[str, Field(min_length=1)] | RowFormat | None = option("pretrain", "How a document becomes rows; default pretrain.")
    text_column: str = option("text", "The column that holds the text.", min_length=1)
    skip: int | None = option(None, "Documents to leave out at the beginning.", ge=0)


class PretrainingSources(Group):
    """Read by fetch."""

    pretraining_dataset: str | list[FetchedDataset] | None = option(None, "What to pretrain on.", min_length=1)


class PretrainingFormats(Group):
    """Read by tokenize."""

    pretraining_dataset: str | list[PretrainingFormat] | None = option(None, "What to pretrain on.", min_length=1)


class Pretraining(PretrainingSources, PretrainingFormats):
    """The list, whole, as params.yaml gives it."""

    pretraining_dataset: str | list[PretrainingEntry] | None = option(  # type: ignore[assignment]
        None, "What to pretrain on: a hub dataset id or a list of entries; replaces datasets, and needs max_steps.", min_length=1
    )


def as_datasets(entries: Any) -> Any:
    """`pretraining_dataset`, as written, as the `datasets` that it stands for; what is no such list comes back as it is."""
    if isinstance(entries, str):
        return [{"path": entries, "type": "pretrain"}]
    if not isinstance(entries, list):
        return entries
    return [_as_dataset(entry) if isinstance(entry, dict) else entry for entry in entries]


def _as_dataset(entry: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in entry.items() if key not in ("text_column", "skip")}
    column = {"field": entry["text_column"]} if "text_column" in entry else {}
    return {"type": "pretrain"} | rest | column


class StreamedRows(Group):
    """Read by fetch."""

    streaming: bool | None = option(
        None, "Fetch no more rows than max_steps can train, in the order of the source; needs max_steps. They are stored like any others."
    )


class Streaming(Group):
    """Read by tokenize and pack."""

    streaming_multipack_buffer_size: int | None = not_yet("Rows that are packed together while streaming.", 10000, idle=(), ge=1)
    pretraining_sample_concatenation: bool | None = refused(
        "Join documents to rows of sequence_len, with an end token between them.",
        "sample_packing joins documents, with an end after each, and no document sees another one",
        "write `sample_packing: true`",
        default=False,
    )
    pretrain_multipack_attn: bool | None = not_yet("Keep joined documents from attending to each other.", True, idle=())
    pretrain_multipack_buffer_size: int | None = renamed("streaming_multipack_buffer_size")
