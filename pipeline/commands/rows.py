"""Looking at rows, from source to step."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.doors import TableAs


class RowsAs(StrEnum):
    """How `regrow inspect` shows rows."""

    text = "text"
    jsonl = "jsonl"


class Split(StrEnum):
    """Which plan of data/packed is meant."""

    train = "train"
    eval = "eval"


class RowsFile(StrEnum):
    """Files that `regrow export` writes."""

    arrow = "arrow"
    parquet = "parquet"
    jsonl = "jsonl"


def inspect(
    tokens: Annotated[Path | None, typer.Argument(help="A token artifact; default data/tokens.")] = None,
    row: Annotated[int | None, typer.Option(help="Begin at this row of the artifact, from 0.")] = None,
    source: Annotated[str | None, typer.Option(help="Rows of this source only: slot (train-00), path or file name.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many rows; default 5, or 1 with --row.", show_default=False)] = None,
    format: Annotated[RowsAs, typer.Option(help="jsonl: one row a line, with input_ids and labels (-100 where masked).")] = RowsAs.text,
) -> None:
    """Show rows of data/tokens: trained text stands out, masked text is dim, special tokens and line ends are visible.

    On a terminal trained text is green. Elsewhere it stands in ⟦ and ⟧. A special token is underlined; text that only reads
    like one has a backslash in front. ↵ is a line end, ␣ a space where trained text begins or ends.
    """
    from pipeline.inspection.opened import choose_rows, open_tokens
    from pipeline.inspection.rows import records, show
    from pipeline.project import find_project

    opened = open_tokens(tokens or find_project().data / "tokens")
    numbers = choose_rows(opened, row, source, count or (5 if row is None else 1))
    if format is RowsAs.text:
        show(opened, numbers)
    else:
        for line in records(opened, numbers):
            typer.echo(line)


def learned(
    tokens: Annotated[Path | None, typer.Argument(help="A token artifact; default data/tokens.")] = None,
    format: Annotated[TableAs, typer.Option(help="The table, or the same as JSON.")] = TableAs.text,
    picture: Annotated[Path | None, typer.Option(help="Write a histogram of row lengths and trained shares to this SVG file.")] = None,
) -> None:
    """What data/tokens teaches, source by source: rows, tokens, trained tokens, longest row, rows dropped and why."""
    from pipeline.inspection.learned import learned_json, print_table
    from pipeline.inspection.opened import open_tokens
    from pipeline.inspection.picture import picture as draw
    from pipeline.project import find_project

    opened = open_tokens(tokens or find_project().data / "tokens")
    if format is TableAs.json:
        typer.echo(learned_json(opened))
    else:
        print_table(opened)
    if picture is not None:
        picture.write_text(draw(opened), encoding="utf-8")
        typer.echo(f"Wrote {picture}.", err=True)


def trace(
    packed: Annotated[str | None, typer.Option(metavar="BIN[:POSITION]", help="Rows of a bin, or the one that a token is of.")] = None,
    row: Annotated[str | None, typer.Option(metavar="SOURCE:ROW", help="What became of a row of a slot, path or file.")] = None,
    step: Annotated[int | None, typer.Option(help="Bins and rows that an optimizer step saw.")] = None,
    split: Annotated[Split, typer.Option(help="Of --packed: the training bins, or those that are held out.")] = Split.train,
    format: Annotated[TableAs, typer.Option(help="Text for people, or JSON.")] = TableAs.text,
) -> None:
    """Follow tokens back to where they come from, or a source row to what became of it. Everything is counted from 0, steps from 1."""
    from pipeline.lineage.commands import trace as trace_it
    from pipeline.project import find_project

    trace_it(find_project().data, packed=packed, row=row, step=step, split=split.value, as_json=format is TableAs.json)


def export_packed(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet, or empty.")],
    format: Annotated[RowsFile, typer.Option(help="Format of the files.")] = RowsFile.parquet,
) -> None:
    """Write the rows that train sees, bin by bin, for other trainers: input_ids, labels (-100 where masked), position_ids, seq_lengths."""
    from pipeline.export import export_packed as write
    from pipeline.progress import open_progress
    from pipeline.project import find_project

    typer.echo(write(find_project().data, folder, format.value, open_progress()))
