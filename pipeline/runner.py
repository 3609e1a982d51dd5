"""Runs one stage: opens its inputs, gives it fresh drafts, publishes what it wrote, or leaves nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact import Artifact, Draft, open_artifact, publish, seal
from pipeline.options.schema import View
from pipeline.progress import Progress
from pipeline.stage import Job, Metrics, Stage


def execute(
    stage: Stage,
    options: View,
    *,
    data: Path,
    scratch: Path,
    sources: Path,
    identity: str,
    progress: Progress,
) -> tuple[Mapping[str, Artifact], Metrics]:
    """Run ``stage`` on the artifacts in ``data`` and publish its outputs there.

    A stage that raises, or a process that is killed, leaves ``data`` without the new outputs; ``scratch`` stays for
    the next try and is removed after success.
    """
    inputs = {name: open_artifact(data / name) for name in stage.reads}
    drafts = {name: _fresh_draft(data, name) for name in stage.writes}
    scratch.mkdir(parents=True, exist_ok=True)
    metrics = stage.run(Job(options, inputs, drafts, scratch, sources, identity, progress))
    digests = {name: artifact.digest for name, artifact in inputs.items()}
    outputs = {name: seal(draft, digests) for name, draft in drafts.items()}
    for name, draft in drafts.items():
        publish(draft, data / name)
    shutil.rmtree(scratch)
    return {name: open_artifact(data / name, verify=False) for name in outputs}, metrics


def _fresh_draft(data: Path, name: str) -> Draft:
    path = data / ".partial" / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return Draft(name, path)
