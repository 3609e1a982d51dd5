"""What to do with a config before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.doors import STAGES
from pipeline.errors import RegrowError


def check(
    file: Annotated[Path, typer.Argument(help="The config to check.")] = Path("params.yaml"),
    resolved: Annotated[bool, typer.Option("--resolved", help="Print every option's value and why it has it.")] = False,
) -> None:
    """Check a config without running anything: every problem at once, each with its line."""
    from pipeline.options.check import check as check_file

    typer.echo(check_file(file, resolved=resolved))


def explain(option: Annotated[str | None, typer.Argument(help="An option, such as val_set_size or eval.choices.")] = None) -> None:
    """What an option does, its default, which stages read it and rerun. Without one: all options there are."""
    from pipeline.options.explain import explain as explain_option
    from pipeline.options.explain import list_options

    typer.echo(list_options() if option is None else explain_option(option))


def schema(docs: Annotated[bool, typer.Option("--docs", help="The option reference (docs/options.md) instead.")] = False) -> None:
    """Print the JSON Schema of params.yaml (params.schema.json), which editors complete and check by."""
    from pipeline.options.json_schema import json_schema_text
    from pipeline.options.reference import reference

    typer.echo(reference() if docs else json_schema_text(), nl=False)


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


def new(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where the project goes.", show_default=False)] = None,
    recipe: Annotated[str, typer.Option(help="What it starts from; --list names all there are.")] = "headlines",
    list_recipes: Annotated[bool, typer.Option("--list", help="Name the recipes, a line each.")] = False,
) -> None:
    """Make a project: params.yaml of a recipe with the data it names, dvc.yaml, the lock, git and DVC initialised."""
    from pipeline.new import create
    from pipeline.new.recipes import find_recipe, recipe_lines

    if list_recipes:
        typer.echo("\n".join(recipe_lines()))
    elif folder is None:
        raise RegrowError("regrow new: DIR is missing.", "Name the project's folder: regrow new my-project --recipe headlines")
    else:
        typer.echo("\n".join(create(folder, find_recipe(recipe), STAGES)))
