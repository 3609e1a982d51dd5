"""Runs one stage: opens its inputs, gives it fresh drafts, publishes what it wrote, or leaves nothing."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import history
from pipeline.artifact import Artifact, Draft, open_artifact, publish, seal
from pipeline.configure import explain_difference, stage_document
from pipeline.digest import canonical_json, digest_file, digest_json
from pipeline.disk import disk_full
from pipeline.dvc_lock import keep_lock
from pipeline.errors import Interrupted, RegrowError, StaleInput
from pipeline.identity import check_installed, read_lock
from pipeline.models import let_idle_threads_sleep
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.options.schema import View
from pipeline.process import die_with_parent
from pipeline.progress import Progress, open_progress
from pipeline.project import Project
from pipeline.stage import Job, Metrics, Stage


def execute(
    stage: Stage,
    options: View,
    *,
    data: Path,
    scratch: Path,
    sources: Path,
    identity: str,
    code: str,
    cache: Path,
    progress: Progress,
    before_publishing: Callable[[], None] = lambda: None,
    observed: dict[str, Any] | None = None,
) -> tuple[Mapping[str, Artifact], Metrics]:
    """Run ``stage`` on the artifacts in ``data`` and publish its outputs there.

    Arguments besides are those of :class:`pipeline.stage.Job`.

    A stage that raises, or a process that is killed, leaves ``data`` without the new outputs; ``scratch`` stays for
    the next try and is removed after success. ``before_publishing`` may still refuse the result by raising.
    """
    inputs = {name: open_artifact(data / name) for name in stage.reads}
    drafts = {name: _fresh_draft(data, name) for name in stage.writes}
    scratch.mkdir(parents=True, exist_ok=True)
    records = data / "metrics" / stage.name
    job = Job(options, inputs, drafts, scratch, sources, identity, code, cache, records, progress, {} if observed is None else observed)
    with _removed_on_failure(stage, drafts, data):
        metrics = stage.run(job)
        digests = {name: artifact.digest for name, artifact in inputs.items()}
        outputs = {name: seal(draft, digests) for name, draft in drafts.items()}
        before_publishing()
        for name, draft in drafts.items():
            publish(draft, data / name)
    _remove_at_once(scratch)
    return {name: open_artifact(data / name, verify=False) for name in outputs}, metrics


@contextmanager
def _removed_on_failure(stage: Stage, drafts: Mapping[str, Draft], data: Path) -> Iterator[None]:
    """Drafts of a stage that fails go at once: they are of no use, and on a full disk they would keep it full."""
    try:
        yield
    except BaseException as error:
        for draft in drafts.values():
            shutil.rmtree(draft.path, ignore_errors=True)
        if full := disk_full(error, stage.name, data):
            raise full from error
        raise


def _fresh_draft(data: Path, name: str) -> Draft:
    path = data / ".partial" / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return Draft(name, path)


def run_for_dvc(project: Project, stage: Stage) -> Metrics:
    """Run ``stage`` as dvc.yaml asks: only inside DVC, only with what `configure` recorded, only if nothing moves meanwhile.

    DVC hashes dependencies after the command ends (treeverse/dvc#11058): an edit during a run would be recorded as if it
    had been used. So everything that decides the output is looked at before and after, and a difference fails the stage.

    Raises:
        RegrowError: not called by DVC, or installed packages differ from the lock.
        StaleInput: code, options or inputs are not what `configure` recorded, or changed during the run.
    """
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != stage.name:  # from a folder above: "project/dvc.yaml:train"
        raise RegrowError(
            f"`run {stage.name}` is what dvc.yaml calls; on its own it would leave dvc.lock behind.",
            f"Run `regrow {stage.name}` (or `dvc repro {stage.name}`).",
        )
    die_with_parent()
    let_idle_threads_sleep()
    keep_lock(project)
    recipe = load_recipe(project.params)
    view, (document, inputs, identity) = recipe.view(stage.options), _identify(project, stage, recipe)
    before = _file_states(project, stage)

    def require_unchanged() -> None:
        if _current_document(project, stage) != document or _file_states(project, stage) != before:
            raise StaleInput(f"Something that {stage.name} reads changed while it ran; its result is not used.", "Run `dvc repro` again.")

    started = time.monotonic()
    observed: dict[str, Any] = {}
    read = {} if stage.reads else {"sources": _digest_sources(project)}
    written = history.written_params(project.params.read_text(encoding="utf-8-sig"))
    known = {"identity": identity, "inputs": inputs, "params": written}
    try:
        outputs, metrics = execute(
            stage,
            view,
            data=project.data,
            scratch=_claim_scratch(project, stage, identity, view),
            sources=project.sources,
            identity=identity,
            code=_digest_code(document),
            cache=project.scratch / "cache" / stage.name,
            progress=open_progress(),
            before_publishing=require_unchanged,
            observed=observed,
        )
    except Interrupted:
        history.record(project, stage.name, {"ended": "stopped", **known, **_costs(started)})
        raise
    facts = {"outputs": {name: artifact.digest for name, artifact in outputs.items()}, "metrics": metrics, **_costs(started), **observed}
    _write_record(project, stage, {"identity": identity, **facts, **read})
    history.record(project, stage.name, {"ended": "done", **known, **facts})
    return metrics


def job_of_another_machine(project: Project, stage: Stage) -> Job[Any]:
    """What ``stage`` is given where it only takes part: the same as on the machine that runs it, but nothing to publish.

    Raises:
        RegrowError: installed packages differ from the lock, an input is missing or damaged.
        StaleInput: code or options are not what `configure` recorded.
    """
    recipe = load_recipe(project.params)
    document, _, identity = _identify(project, stage, recipe)
    return Job(
        options=recipe.view(stage.options),
        inputs={name: open_artifact(project.data / name) for name in stage.reads},
        outputs={},
        scratch=project.scratch / stage.name / identity[:16],
        sources=project.sources,
        identity=identity,
        code=_digest_code(document),
        cache=project.scratch / "cache" / stage.name,
        records=project.data / "metrics" / stage.name,
        progress=open_progress(),
    )


def _identify(project: Project, stage: Stage, recipe: Recipe) -> tuple[dict[str, Any], dict[str, str], str]:
    """The document of a stage, which must be the recorded one, the digests of its inputs, and its identity."""
    document = stage_document(project, recipe, stage, read_lock(project.lock))
    _require_recorded(project, stage, document)
    check_installed(document["packages"])
    inputs = {name: open_artifact(project.data / name, verify=False).digest for name in stage.reads}
    return document, inputs, digest_json({"stage": stage.name, "document": document, "inputs": inputs})


def _digest_code(document: Mapping[str, Any]) -> str:
    return digest_json({name: document[name] for name in ("code", "packages")})


def _current_document(project: Project, stage: Stage) -> dict[str, Any]:
    return stage_document(project, load_recipe(project.params), stage, read_lock(project.lock))


def _require_recorded(project: Project, stage: Stage, document: Mapping[str, Any]) -> None:
    if differences := explain_difference(project.stage_options(stage.name), document):
        shown = "\n  ".join(differences[:5])
        raise StaleInput(
            f"data/options/{stage.name}.json is not what params.yaml and the code say now:\n  {shown}", "Run `dvc repro` again."
        )


def _file_states(project: Project, stage: Stage) -> list[list[Any]]:
    """Name, size and time of change of every file the stage reads. Their bytes were hashed; this only notices a change."""
    folders = [project.data / name for name in stage.reads] or [project.sources]
    files = {path: path.stat() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}
    return [[str(path), state.st_size, state.st_mtime_ns] for path, state in files.items()]


def _digest_sources(project: Project) -> dict[str, str]:
    """SHA-256 (hex) of every local source. DVC has one digest for all; by these `regrow verify` names the file that changed."""
    files = (path for path in sorted(project.sources.rglob("*")) if path.is_file())
    return {path.relative_to(project.sources).as_posix(): digest_file(path) for path in files}


def _claim_scratch(project: Project, stage: Stage, identity: str, options: View) -> Path:
    """The stage's scratch folder for this identity. What runs of another identity left there is of no use any more.

    But for a checkpoint that the options name: the stage says why it is another run's, and it is still there to go back to.
    """
    folder = project.scratch / stage.name
    named = (project.root / Path(getattr(options, "resume_from_checkpoint", None) or "").expanduser()).resolve()
    for other in sorted(folder.glob("*"), reverse=True):  # of one that is half gone, that half first
        if other.name != identity[:16] and not named.is_relative_to(other.resolve()):
            _remove_at_once(other)
    return folder / identity[:16]


def _remove_at_once(scratch: Path) -> None:
    """Rename it first: a kill would leave a part of it, such as a newest checkpoint without the best one that it counts on."""
    gone = scratch.with_name(f"{scratch.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    scratch.rename(gone)
    shutil.rmtree(gone)


def _costs(started: float) -> dict[str, Any]:
    """What this process and its own took since ``started``, and where. Kept beside the artifacts, never inside: no run is like another.

    Of memory it is the largest process's, as the system keeps no sum.
    """
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in usages), 2),
        "peak_memory_mb": max(usage.ru_maxrss for usage in usages) // 1024,
        "threads": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def _write_record(project: Project, stage: Stage, facts: Mapping[str, Any]) -> None:
    """The record of the stage's last run."""
    path = project.data / "metrics" / f"{stage.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in facts.items()}
    path.write_text(canonical_json({"stage": stage.name, **rounded}), encoding="utf-8")
