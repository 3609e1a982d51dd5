"""An artifact against its manifest, and the manifest against the artifacts it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.artifact import MANIFEST, Artifact
from pipeline.digest import canonical_json
from pipeline.stage import Stage
from pipeline.verification.chain import LOCK_REMEDY, Broken, Chain, remedy
from pipeline.verification.measured import MeasuredPath
from pipeline.verification.recorded import Entry


def check_artifact(chain: Chain, stage: Stage, name: str, readers: Mapping[str, tuple[str, ...]]) -> Iterator[Broken]:
    """One folder under data/: dvc.lock, the manifest, each file, and the digests of what it was made from.

    Args:
        readers: for every artifact the artifacts made from it, whose manifests bear witness to its digest.
    """
    entry = chain.recorded.stages[stage.name].outs.get(f"data/{name}")
    if entry is None:
        yield Broken(
            stage.name, "dvc.yaml", f"dvc.yaml does not list data/{name} as an output of {stage.name}.", "Run: git checkout dvc.yaml"
        )
        return
    by_lock = list(chain.compare(entry))
    found = chain.look(entry.path)
    if found is None or (by_lock and by_lock[0].file != entry.path):
        yield from by_lock
        return
    witnesses = set(_witnesses(chain, stage, name, readers)) if by_lock else set()  # otherwise dvc.lock vouches for the manifest
    by_manifest = list(_by_manifest(chain, stage, entry, found, witnesses))
    yield from by_manifest
    if by_lock and not by_manifest:  # files, manifest and what was made from it agree with each other
        yield Broken(stage.name, "dvc.lock", f"dvc.lock: {by_lock[0].problem}", LOCK_REMEDY)


def _by_manifest(chain: Chain, stage: Stage, entry: Entry, found: MeasuredPath, witnesses: set[str]) -> Iterator[Broken]:
    name = entry.path.removeprefix("data/")
    manifest = f"{entry.path}/{MANIFEST}"

    def broken(file: str, problem: str, what_to_do: str = remedy(entry)) -> Broken:
        return Broken(stage.name, file, problem, what_to_do)

    try:
        artifact = read_manifest(chain, name)
    except ValueError as error:
        yield broken(manifest, f"{manifest} {error}.")
        return
    if witnesses and artifact.digest not in witnesses:
        told = ", ".join(sorted(witnesses))
        yield broken(manifest, f"{manifest}: the digest of what it says is {artifact.digest}; those who read {entry.path} say {told}.")
        return
    yield from (broken(file, problem) for file, problem in _files(entry.path, artifact, found))
    for read in sorted(artifact.inputs.keys() | set(stage.reads)):
        expected, actual = artifact.inputs.get(read), _digest(chain, read)
        if expected != actual or read not in stage.reads:
            yield broken(
                manifest,
                f"{manifest}: made from data/{read} with digest {expected}; data/{read} has {actual}.",
                f"Run: dvc repro {stage.name}",
            )


def read_manifest(chain: Chain, name: str) -> Artifact:
    """The manifest of ``data/<name>``.

    Raises:
        ValueError: it is not what a stage writes; says why.
    """
    path = chain.project.data / name
    try:
        text = (path / MANIFEST).read_bytes().decode("utf-8")
        manifest: dict[str, Any] = json.loads(text)
        artifact = Artifact(manifest["artifact"], path, manifest["content"], manifest["files"], manifest["inputs"])
        sizes = [(record["size"], record["sha256"]) for record in artifact.files.values()]
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot be read: {error!r}") from None
    if (
        len(sizes) != len(artifact.files)
        or canonical_json(manifest) != text
        or manifest.keys() != {"artifact", "content", "files", "inputs"}
    ):
        raise ValueError("is not as a stage writes it")
    if artifact.name != name:
        raise ValueError(f"says that it is of {artifact.name!r}")
    return artifact


def _digest(chain: Chain, name: str) -> str | None:
    try:
        return read_manifest(chain, name).digest
    except ValueError:
        return None


def _files(folder: str, artifact: Artifact, found: MeasuredPath) -> Iterator[tuple[str, str]]:
    for name in sorted((artifact.files.keys() | found.files.keys()) - {MANIFEST}):
        record, actual = artifact.files.get(name), found.files.get(name)
        if actual is None or record is None:
            yield f"{folder}/{name}", f"{folder}/{name} {'is missing' if actual is None else f'is not in {MANIFEST}'}."
        elif actual.size != record["size"]:
            yield f"{folder}/{name}", f"{folder}/{name}: {MANIFEST} says {record['size']} bytes; found {actual.size}."
        elif actual.sha256 != record["sha256"]:
            yield f"{folder}/{name}", f"{folder}/{name}: {MANIFEST} has SHA-256 {record['sha256']}; found {actual.sha256}."


def _witnesses(chain: Chain, stage: Stage, name: str, readers: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Digests of ``name`` that others recorded: the run record, and manifests of what was made from it."""
    if isinstance(recorded := chain.record(stage.name).get("outputs"), dict) and name in recorded:
        yield recorded[name]
    for reader in readers.get(name, ()):
        try:
            yield read_manifest(chain, reader).inputs.get(name, "")
        except ValueError:
            continue
