"""The command ``regrow``. Thin: each command finds the project, calls one function, and prints."""

from __future__ import annotations

import importlib
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import RegrowError

STAGES = ("fetch", "tokenize", "dedupe", "pack", "train", "merge", "quantize", "eval")


class RowsAs(StrEnum):
    """How `regrow inspect` shows rows."""

    text = "text"
    jsonl = "jsonl"


class TableAs(StrEnum):
    """How `regrow learned` and `regrow trace` show what they found."""

    text = "text"
    json = "json"


class Split(StrEnum):
    """Which plan of data/packed is meant."""

    train = "train"
    eval = "eval"


class RowsFile(StrEnum):
    """Files that `regrow export` writes."""

    arrow = "arrow"
    parquet = "parquet"
    jsonl = "jsonl"


app = typer.Typer(
    help="Reproducible fine-tuning of language models: an Axolotl config in, a merged, quantised and judged model out.\n\n"
    "Run everything with `dvc repro`, or one stage and what it needs with `regrow <stage>`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; a problem of the user's is one message and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except RegrowError as error:
        typer.echo(f"error: {error}", err=True)
        _leave_exit_code(error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'regrow'}: {error.strerror or error}", err=True)
        _leave_exit_code(2)
        sys.exit(2)
    except ModuleNotFoundError as error:
        typer.echo(f"error: the package {error.name!r} is not installed.\n  Run: pip install -r requirements.lock", err=True)
        _leave_exit_code(2)
        sys.exit(2)


def _open_stage(name: str):  # type: ignore[no-untyped-def]  # a Stage, which --help must not import
    """The only door from pipeline to stages."""
    return importlib.import_module(f"stages.{name}").STAGE


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The config to check.")] = Path("params.yaml"),
    resolved: Annotated[bool, typer.Option("--resolved", help="Print every option's value and why it has it.")] = False,
) -> None:
    """Check a config without running anything: every problem at once, each with its line."""
    from pipeline.options.check import check as check_file

    typer.echo(check_file(file, resolved=resolved))


@app.command()
def explain(option: Annotated[str | None, typer.Argument(help="An option, such as val_set_size or eval.choices.")] = None) -> None:
    """What an option does, its default, which stages read it and rerun. Without one: all options there are."""
    from pipeline.options.explain import explain as explain_option
    from pipeline.options.explain import list_options

    typer.echo(list_options() if option is None else explain_option(option))


@app.command()
def schema(docs: Annotated[bool, typer.Option("--docs", help="The option reference (docs/options.md) instead.")] = False) -> None:
    """Print the JSON Schema of params.yaml (params.schema.json), which editors complete and check by."""
    from pipeline.options.json_schema import json_schema_text
    from pipeline.options.reference import reference

    typer.echo(reference() if docs else json_schema_text(), nl=False)


@app.command("import", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def import_axolotl(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="An Axolotl config.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of standard output.")] = None,
) -> None:
    """Make a clean params.yaml of an Axolotl config with anchors, ${VARIABLES}, old names or overrides (--lora-r 8)."""
    from pipeline.options.importer import import_config
    from pipeline.options.recipe import read_text

    imported = import_config(read_text(file), file.name, os.environ, context.args)
    for change in imported.changes:
        typer.echo(f"changed: {change}", err=True)
    for problem in imported.remaining:
        typer.echo(f"to do: {problem}", err=True)
    if output is None:
        typer.echo(imported.text, nl=False)
    elif output.exists():
        raise RegrowError(f"{output} exists already.", "Name another file, or move it away first.")
    else:
        output.write_text(imported.text, encoding="utf-8")


@app.command()
def configure() -> None:
    """Write data/options/<stage>.json from params.yaml. `dvc repro` does this first."""
    from pipeline.configure import configure as write_options
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project

    project = find_project()
    recipe = load_recipe(project.params)
    for warning in recipe.warnings:
        typer.echo(f"warning: {warning}", err=True)
    write_options(project, recipe, [_open_stage(name) for name in STAGES])


@app.command()
def plan() -> None:
    """Which stages would run after your edits, and why, field by field; and what training will take. Changes nothing."""
    from pipeline.forecast import forecast
    from pipeline.options.recipe import load_recipe
    from pipeline.options.views import TrainOptions
    from pipeline.plan import plan as make_plan
    from pipeline.project import find_project

    project = find_project()
    recipe = load_recipe(project.params)
    planned = make_plan(project, recipe, [_open_stage(name) for name in STAGES])
    nothing = "Options, code and libraries are those of the last run. (`dvc status` looks at the data too.)"
    typer.echo("\n".join(planned.lines) or nothing)
    if not planned.changed & {"tokens", "packed"}:
        for line in forecast(project.data, recipe.view(TrainOptions)):
            typer.echo(line)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def chat(
    model: Annotated[Path | None, typer.Option(help="A model's folder, or a GGUF file; default data/merged.", show_default=False)] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="data/base with the adapter of data/trained, not merged.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="The GGUF file of data/quantized.")] = False,
    system: Annotated[str | None, typer.Option(help="A system prompt for every conversation.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer; default 512.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0, the default, takes the likeliest token.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at a temperature.")] = 42,
    gradio: Annotated[bool, typer.Option("--gradio", help="On a page of this computer, with the gradio_* options.")] = False,
) -> None:
    """Talk to a model that the pipeline made, with the chat template it was trained with."""
    from pipeline.chat.conversation import Conversation, Sampling
    from pipeline.chat.opened import open_chat_model
    from pipeline.chat.page import page_sampling, require_gradio, serve
    from pipeline.chat.terminal import talk
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project

    project = find_project()
    if gradio:
        require_gradio()
    page = load_recipe(project.params).options if gradio else None
    sampling = Sampling(seed=seed) if page is None else page_sampling(page, seed)
    sampling = sampling.changed(max_new_tokens=max_new_tokens, temperature=temperature)
    conversation = Conversation(*open_chat_model(project.data, model, adapter=adapter, gguf=gguf), sampling)
    if page is None:
        talk(conversation, system, lambda: input("> "), lambda piece: typer.echo(piece, nl=False))
    else:
        serve(conversation, system, page)


@app.command("vllm-serve")
def vllm_serve() -> None:
    """Start a vLLM server on data/base with the options of `vllm:`, for GRPO with `trl.vllm_mode: server`. Needs a CUDA GPU."""
    from pipeline.options.online import VllmServer
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project
    from pipeline.vllm_server import serve

    project = find_project()
    serve(project, load_recipe(project.params).options.vllm or VllmServer())


@app.command()
def report(
    file: Annotated[Path | None, typer.Argument(help="Where to write; default data/metrics/report.html.", show_default=False)] = None,
) -> None:
    """Write a copy of data/eval/report.html that also says what each stage took: time, memory, tokens."""
    from pipeline.costs import write_report
    from pipeline.project import find_project

    project = find_project()
    target = file or project.data / "metrics" / "report.html"
    write_report(project, target, STAGES)
    typer.echo(f"Wrote {target}.")


export = typer.Typer(help="Write what the pipeline made for other programs.", no_args_is_help=True)
app.add_typer(export, name="export")


@export.command("packed")
def export_packed(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet, or empty.")],
    format: Annotated[RowsFile, typer.Option(help="Format of the files.")] = RowsFile.parquet,
) -> None:
    """Write the rows that train sees, bin by bin, for other trainers: input_ids, labels (-100 where masked), position_ids, seq_lengths."""
    from pipeline.export import export_packed as write
    from pipeline.progress import open_progress
    from pipeline.project import find_project

    typer.echo(write(find_project().data, folder, format.value, open_progress()))


@app.command(hidden=True)
def run(stage: str) -> None:
    """What dvc.yaml calls: run one stage inside DVC."""
    from pipeline.project import find_project
    from pipeline.runner import run_for_dvc

    if stage not in STAGES:
        raise RegrowError(f"{stage!r} is not a stage.", f"Stages: {', '.join(STAGES)}.")
    run_for_dvc(find_project(), _open_stage(stage))


def _add_stage_command(name: str, summary: str) -> None:
    def command(
        force: Annotated[bool, typer.Option("--force", help="Run this stage even if nothing changed, and no stage before it.")] = False,
        single: Annotated[bool, typer.Option("--single", help="Run this stage if it changed, and no stage before it.")] = False,
    ) -> None:
        from pipeline.through_dvc import reproduce

        reproduce(name, force=force, single=single)

    app.command(name, help=summary)(command)


for _name, _summary in {
    "fetch": "Fetch data, tokenizer and base model.",
    "tokenize": "Turn rows into token ids and loss masks.",
    "dedupe": "Find duplicate rows.",
    "pack": "Choose, split, order and pack rows.",
    "train": "Fine-tune; resumes a killed run.",
    "merge": "Merge the adapter into the base model.",
    "quantize": "Write quantised models.",
    "eval": "Judge base, merged and quantised model; write the report.",
}.items():
    _add_stage_command(_name, _summary)


def _leave_exit_code(code: int) -> None:
    """DVC turns every failure into 255; `regrow <stage>` reads the stage's own code from here."""
    if "DVC_STAGE" in os.environ:
        folder = Path(os.environ.get("DVC_ROOT", ".")) / ".regrow"
        folder.mkdir(exist_ok=True)
        (folder / "exit_code").write_text(str(code), encoding="utf-8")
