"""Running stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.doors import open_machines, open_sharded_merge, open_stage, require_stage
from pipeline.errors import RegrowError

Force = Annotated[bool, typer.Option("--force", help="Run this stage even if nothing changed, and no stage before it.")]
Single = Annotated[bool, typer.Option("--single", help="Run this stage if it changed, and no stage before it.")]

SUMMARIES = {
    "fetch": "Fetch data, tokenizer and base model.",
    "tokenize": "Turn rows into token ids and loss masks.",
    "dedupe": "Find duplicate rows.",
    "pack": "Choose, split, order and pack rows.",
    "train": "Fine-tune; resumes a killed run.",
    "merge": "Merge the adapter into the base model.",
    "quantize": "Write quantised models.",
    "eval": "Judge base, merged and quantised model; write the report.",
}


def run(stage: str) -> None:
    """What dvc.yaml calls: run one stage inside DVC."""
    from pipeline.dvc_cache import damage_removed_from_cache
    from pipeline.project import find_project
    from pipeline.runner import run_for_dvc

    require_stage(stage)
    project = find_project()
    with damage_removed_from_cache(project):
        run_for_dvc(project, open_stage(stage))


def stage_command(name: str) -> Callable[..., None]:
    """The command of a stage: through DVC, so that dvc.lock stays true."""

    def command(force: Force = False, single: Single = False) -> None:
        from pipeline.through_dvc import reproduce

        reproduce(name, force=force, single=single)

    return merge if name == "merge" else command


def merge(
    force: Force = False,
    single: Single = False,
    sharded: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead: make a plain model of this FSDP or DeepSpeed ZeRO checkpoint.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of --sharded: where to; default NAME-merged here.", show_default=False)
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of --sharded: the model it was trained from; default data/base.", show_default=False),
    ] = None,
) -> None:
    """Merge the adapter into the base model."""
    from pipeline.sharded import merge_sharded
    from pipeline.through_dvc import reproduce

    if sharded is not None and (force or single):
        raise RegrowError("--sharded makes a model beside the pipeline, and --force and --single are for its stage.", "Leave them out.")
    if sharded is not None:
        typer.echo(merge_sharded(sharded, output, base, open_sharded_merge()))
    elif output is not None or base is not None:
        raise RegrowError("--output and --base belong to --sharded.", "The stage merges data/trained with data/base into data/merged.")
    else:
        reproduce("merge", force=force, single=single)


def join() -> None:
    """Train along with another machine, which runs `dvc repro` in this folder with train.num_machines; waits for it to begin."""
    from pipeline.models import let_idle_threads_sleep
    from pipeline.progress import open_progress
    from pipeline.project import find_project
    from pipeline.runner import job_of_another_machine

    let_idle_threads_sleep()
    project, machines = find_project(), open_machines()
    stage = open_stage("train")
    invitation = machines.await_invitation(project.scratch / stage.name, open_progress().say)
    machines.join(lambda: job_of_another_machine(project, stage), invitation)
