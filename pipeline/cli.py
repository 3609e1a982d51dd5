"""The command ``regrow``. Thin: each command finds the project, calls one function, and prints."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import RegrowError

STAGES = ("fetch", "tokenize", "dedupe", "pack", "train", "merge", "quantize", "eval")

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
    except ModuleNotFoundError as error:
        typer.echo(f"error: the package {error.name!r} is not installed.\n  Run: pip install -r requirements.lock", err=True)
        _leave_exit_code(2)
        sys.exit(2)


def _open_stage(name: str):  # type: ignore[no-untyped-def]  # a Stage, which --help must not import
    """The only door from pipeline to stages."""
    return importlib.import_module(f"stages.{name}").STAGE


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The config to check.")] = Path("params.yaml")) -> None:
    """Check a config without running anything: every problem at once, each with its line."""
    from pipeline.options.recipe import load_recipe

    load_recipe(file)
    typer.echo(f"{file}: no problems.")


@app.command()
def configure() -> None:
    """Write data/options/<stage>.json from params.yaml. `dvc repro` does this first."""
    from pipeline.configure import configure as write_options
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project

    project = find_project()
    write_options(project, load_recipe(project.params), [_open_stage(name) for name in STAGES])


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
        from pipeline.reproduce import reproduce

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
