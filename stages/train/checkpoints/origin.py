"""What a checkpoint was made from, and whether a run may go on from it: only one that would have made the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from pipeline.stage import Job
from stages.train.checkpoints.complete import ORIGIN, is_complete, newest_resumable, read_origin, remove_after

_MOST_SHOWN = 3


def origin_of(job: Job[TrainOptions], world_size: int, precision: str) -> dict[str, Any]:
    """All that decides the numbers of a run: options, inputs, code and libraries, and what the machine adds."""
    inputs = {name: artifact.digest for name, artifact in job.inputs.items()}
    machine = {"processes": world_size, "precision": precision}
    return {"identity": job.identity, "options": job.options.canonical(), "inputs": inputs, "code": job.code, **machine}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What a checkpoint was made with that this run has otherwise: one line for each field."""
    for name in sorted({*there["options"], *here["options"]}):
        old, new = there["options"].get(name), here["options"].get(name)
        if old != new:
            yield f"{name}: {_shown(old)} there, {_shown(new)} here"
    for name in sorted({*there["inputs"], *here["inputs"]}):
        if there["inputs"].get(name) != here["inputs"].get(name):
            yield f"data/{name} is another one"
    if there["code"] != here["code"]:
        yield "code: the code of train, or the version of a library"
    for name in ("processes", "precision"):
        if there[name] != here[name]:
            yield f"{name}: {there[name]} there, {here[name]} here"


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def choose_start(options: TrainOptions, checkpoints: Path, origin: Mapping[str, Any]) -> Path | None:
    """The checkpoint that a run goes on from, or ``None``; later ones, which it will write again, are removed.

    Raises:
        RegrowError: ``resume_from_checkpoint`` names none that can be resumed; a checkpoint is another run's.
    """
    if options.resume_from_checkpoint is not None:
        start: Path | None = Path(options.resume_from_checkpoint).expanduser()
        _require_checkpoint(Path(str(start)))
    else:
        start = newest_resumable(checkpoints) if options.auto_resume_from_checkpoints else None
    if start is not None:
        _require_same(start, origin, "resume_from_checkpoint: " if options.resume_from_checkpoint else "")
    return start


def forget_later(checkpoints: Path, start: Path | None) -> None:
    """Remove what comes after the checkpoint that a run starts from, or everything."""
    remove_after(checkpoints, -1 if start is None else int(read_origin(start)["step"]))


def _require_checkpoint(folder: Path) -> None:
    works = "Name a folder checkpoint-N that this project wrote while it trained, or remove resume_from_checkpoint."
    if not folder.is_dir():
        raise RegrowError(f"resume_from_checkpoint: {folder} is not a folder.", works)
    if not (folder / ORIGIN).is_file():
        raise RegrowError(
            f"resume_from_checkpoint: {folder} has no {ORIGIN}, so nothing says which model, rows and order it belongs to.",
            "To start from its weights, name it as base_model (or, for an adapter, as lora_model_dir).",
        )
    if not is_complete(folder):
        raise RegrowError(
            f"resume_from_checkpoint: {folder} is not complete; the run was killed while it was written, or a file was changed since.",
            works,
        )
    if not read_origin(folder).get("resumable"):
        raise RegrowError(f"resume_from_checkpoint: {folder} has no optimizer state (save_only_model).", works)


def _require_same(start: Path, origin: Mapping[str, Any], key: str) -> None:
    found = list(differences(read_origin(start), origin))
    if found:
        more = f"\n  and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        otherwise = "remove resume_from_checkpoint" if key else "set auto_resume_from_checkpoints: false"
        raise RegrowError(
            f"{key}{start} is a checkpoint of another run:\n  " + "\n  ".join(found[:_MOST_SHOWN]) + more,
            f"Go back to what it was made with, or {otherwise}.",
        )
