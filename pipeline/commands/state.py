"""What has run, what would run, whether it is whole, and whether it can be had again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.doors import STAGES, TableAs, open_stages, require_stage


def configure() -> None:
    """Write data/options/<stage>.json from params.yaml. `dvc repro` does this first."""
    from pipeline.configure import configure as write_options
    from pipeline.options.recipe import load_recipe
    from pipeline.project import find_project

    project = find_project()
    recipe = load_recipe(project.params)
    for warning in recipe.warnings:
        typer.echo(f"warning: {warning}", err=True)
    write_options(project, recipe, open_stages())


def plan(format: Annotated[TableAs, typer.Option(help="Text for people, or JSON.")] = TableAs.text) -> None:
    """Which stages would run and why, which come from cache, and about how long it takes. Changes nothing.

    Exit code: 0 if there is nothing to do, 3 if there is work, 2 if params.yaml cannot work.
    """
    from pipeline.options.recipe import load_recipe
    from pipeline.planning.expected import expect, training_lines
    from pipeline.planning.show import as_json, as_text, exit_code
    from pipeline.planning.verdicts import plan as make_plan
    from pipeline.project import find_project

    project = find_project()
    recipe = load_recipe(project.params)
    planned = make_plan(project, recipe, open_stages())
    expected = expect(project, recipe, planned)
    if format is TableAs.json:
        typer.echo(as_json(planned, expected))
    else:
        typer.echo("\n".join(as_text(planned, expected, [*training_lines(project, recipe, planned)])))
    raise typer.Exit(exit_code(planned))


def verify(
    stage: Annotated[str | None, typer.Argument(help="This stage and what it stands on; default: all.", show_default=False)] = None,
) -> None:
    """Check every byte under data/ against manifests and dvc.lock, and every digest back to the sources; name the first broken link.

    Exit code 1: a link is broken.
    """
    from pipeline.progress import open_progress
    from pipeline.project import find_project
    from pipeline.verification.table import lines
    from pipeline.verification.verify import verify as verify_all

    if stage is not None:
        require_stage(stage)
    found = verify_all(find_project(), open_stages(), stage, open_progress())
    typer.echo("\n".join(lines(found)))
    if found.broken:
        raise typer.Exit(1)


def reproduce(
    stages: Annotated[list[str] | None, typer.Option(help="These and what they stand on; default: all.", show_default=False)] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the clone there. One that differs is always left.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that tokenize; default another number.", show_default=False)] = None,
    with_changes: Annotated[bool, typer.Option("--with-changes", help="Take what is not committed along.")] = False,
) -> None:
    """Run what is committed again in a clean clone, otherwise in every way that must not matter, and compare every digest.

    The clone has empty caches, a path of another length, other PYTHONHASHSEED, LC_ALL, TZ and worker count. Exit code 1: a stage
    differs that should not, or did not run.
    """
    from pipeline.project import find_project
    from pipeline.reproduction.reproduce import reproduce as run_again
    from pipeline.reproduction.table import lines

    names = [name for text in stages or [] for name in text.split(",") if name]
    for name in names:
        require_stage(name)
    opened = open_stages()
    found = run_again(find_project(), opened, names, workers=workers, keep=keep, with_changes=with_changes)
    typer.echo("\n".join(lines(found)))
    if not found.holds:
        raise typer.Exit(1)


def log(
    number: Annotated[int, typer.Option("-n", min=1, help="How many runs.")] = 20,
    format: Annotated[TableAs, typer.Option(help="A table, or JSON with everything that is known.")] = TableAs.text,
) -> None:
    """Runs, newest first: params changed, digests, metrics, time, which stages ran and whose results were reused."""
    from pipeline.project import find_project
    from pipeline.runs import collect
    from pipeline.runs.table import log_json, print_log

    runs = collect(find_project(), STAGES, number)
    if format is TableAs.json:
        typer.echo(log_json(runs))
    else:
        print_log(runs)


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
