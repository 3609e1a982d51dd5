"""The command ``regrow``: its commands, and how they end."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import typer

from pipeline.commands import models, recipes, rows, stages, state
from pipeline.errors import RegrowError

app = typer.Typer(
    help="Reproducible fine-tuning of language models: an Axolotl config in, a merged, quantised and judged model out.\n\n"
    "Run everything with `dvc repro`, or one stage and what it needs with `regrow <stage>`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(recipes.new)
app.command()(recipes.check)
app.command()(recipes.explain)
app.command()(recipes.schema)
app.command("import", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(recipes.import_axolotl)
for command in (
    state.configure,
    state.plan,
    state.verify,
    state.reproduce,
    state.log,
    state.report,
    rows.inspect,
    rows.learned,
    rows.trace,
):
    app.command()(command)
export = typer.Typer(help="Write what the pipeline made for other programs.", no_args_is_help=True)
export.command("packed")(rows.export_packed)
app.add_typer(export, name="export")
app.command()(models.chat)
app.command("vllm-serve")(models.vllm_serve)
app.command()(stages.join)
app.command(hidden=True)(stages.run)
for name, summary in stages.SUMMARIES.items():
    app.command(name, help=summary)(stages.stage_command(name))


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


def _leave_exit_code(code: int) -> None:
    """DVC turns every failure into 255; `regrow <stage>` reads the stage's own code from here."""
    if "DVC_STAGE" in os.environ:
        folder = Path(".regrow")  # DVC runs a stage in the folder of its dvc.yaml
        with suppress(OSError):  # the message has been printed; on a full or read-only disk the code is all that is lost
            folder.mkdir(exist_ok=True)
            (folder / "exit_code").write_text(str(code), encoding="utf-8")
