"""The files on this disk that params.yaml names as sources, by the place at which `configure` links them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.data_files import is_builder, named_files
from pipeline.errors import RegrowError
from pipeline.options.datasets import FetchedDataset
from pipeline.options.recipe import Recipe
from pipeline.options.views import FetchOptions
from pipeline.project import Project
from pipeline.source import Local, glob_base, hub_file, parse_source

_WRITTEN = frozenset(
    {"sources", "options", "modules", "metrics", "raw", "tokenizer", "base", "tokens", "dedupe", "packed", "trained", "merged", "quantized"}
    | {"eval", "benchmark", "others"}
)
"""Folders under data/ that regrow writes."""


def local_files(project: Project, recipe: Recipe) -> dict[str, Path]:
    """Every local file that fetch reads, by the place it is linked at: ``<slot>/<path within a folder source>``.

    Raises:
        RegrowError: a local source does not exist or is empty; names the option and the value.
    """
    found: dict[str, Path] = {}
    for slot, option, value in _source_values(recipe.view(FetchOptions)):
        is_file = option.endswith(".data_files")
        is_remote = option == "bench_dataset" and hub_file(value) is not None and not (project.root / value).exists()
        path = None if is_remote else _local_path(project, value, is_file=is_file)
        if path is not None and path.is_dir() and is_file:
            raise RegrowError(f"params.yaml: {option}: {value!r} is a folder.", f"Name files: {value.rstrip('/')}/*.jsonl")
        if path is not None:
            found |= {f"{slot}/{name}": file for name, file in _files(project, path, option, value).items()}
    for name in found:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise RegrowError(f"params.yaml: a file is named {name!r}, which is not UTF-8.", "Give it another name.")
    return found


def _source_values(options: FetchOptions) -> list[tuple[str, str, str]]:
    """(slot, option, value) of every option that names a source."""
    train = "pretraining_dataset" if options.pretraining_dataset else "datasets"
    values = [item for i, entry in enumerate(options.datasets) for item in _of_entry(f"train-{i:02d}", f"{train}[{i}]", entry)]
    for i, entry in enumerate(options.test_datasets or []):
        values += _of_entry(f"test-{i:02d}", f"test_datasets[{i}]", entry)
    for i, entry in enumerate(options.dedupe.against or []):
        values += _of_entry(f"against-{i:02d}", f"dedupe.against[{i}]", entry)
    values.append(("base", "base_model", options.base_model))
    if options.base_model_config is not None:
        values.append(("config", "base_model_config", options.base_model_config))
    if options.tokenizer_config is not None:
        values.append(("tokenizer", "tokenizer_config", options.tokenizer_config))
    if options.do_bench_eval and options.bench_dataset is not None:
        values.append(("bench", "bench_dataset", options.bench_dataset))
    for i, other in enumerate(options.merge.others or []):
        values.append((f"merge-{i:02d}", f"merge.others[{i}].path", other.path))
    if options.eval.lm_eval.include_path is not None:
        values.append(("lm-eval", "eval.lm_eval.include_path", options.eval.lm_eval.include_path))
    return values


def _of_entry(slot: str, option: str, entry: FetchedDataset) -> list[tuple[str, str, str]]:
    if entry.data_files is None or not is_builder(entry.path, entry.data_files):
        return [(slot, f"{option}.path", entry.path)]
    return [(f"{slot}/{item.number}", f"{option}.data_files", item.text) for item in named_files(entry.data_files)]


def _local_path(project: Project, value: str, *, is_file: bool) -> Path | None:
    """Where a local source is; ``None`` for a source elsewhere. A path that exists is local, whatever it looks like.

    ``is_file``: it cannot be a repository on the hub.
    """
    if value.startswith("pypi:") or "://" in value:
        return None
    try:
        path = project.named(value)
        exists = path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise RegrowError(f"params.yaml: {value[:80]!r} is no path that can be looked at: {error}.") from None
    return path if exists or is_file or isinstance(parse_source(value), Local) else None


def _files(project: Project, path: Path, option: str, value: str) -> dict[str, Path]:
    base, pattern = glob_base(str(Path(value).expanduser()))
    if path.is_dir():
        _refuse_surrounding(project, path, option, value)
        files = _not_copied(project, value, lambda folder: _visible(folder, _walk(folder, option))) | _visible(path, _walk(path, option))
    elif pattern is not None and not path.exists():
        chosen, matched = pattern, project.named(str(base))
        files = _not_copied(project, str(base), lambda folder: _matching(folder, chosen, option, value))
        files |= _matching(matched, pattern, option, value)
    else:
        files = {path.name: path} if path.is_file() else {}
    if not files:
        what = "is an empty folder" if path.is_dir() else "does not exist" if pattern is None else "matches no file"
        raise RegrowError(
            f"params.yaml: {option}: {value!r} {what}.", f"Looked for {path}. Relative paths start at the folder of params.yaml."
        )
    _refuse_own(project, files.values(), option, value)
    return files


def _matching(base: Path, pattern: str, option: str, value: str) -> dict[str, Path]:
    """Files that a pattern names, by their place in the folder that it starts from."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise RegrowError(f"params.yaml: {option}: {value!r} is no pattern.", "Behind its first * a pattern goes down only: data/*.jsonl")
    return _visible(base, base.glob(pattern))


def _not_copied(project: Project, value: str, list_files: Callable[[Path], dict[str, Path]]) -> dict[str, Path]:
    """Files of a folder that an experiment's copy of the project lacks, because git does not track them."""
    original = project.home.root / Path(value).expanduser()
    if project.home == project or not original.is_dir():
        return {}
    listed = subprocess.run(["git", "ls-files", "--others", "-z"], cwd=original, capture_output=True, text=True, check=False).stdout
    untracked = set(listed.split("\0"))
    return {name: file for name, file in list_files(original).items() if file.relative_to(original).as_posix() in untracked}


def _refuse_own(project: Project, files: Iterable[Path], option: str, value: str) -> None:
    """What a stage writes is no source: it would be read before it is written."""
    own = [f"{data.resolve() / name}/" for data in (project.data, project.home.data) for name in _WRITTEN]
    for file in files:
        if str(file.resolve()).startswith(tuple(own)):
            raise RegrowError(f"params.yaml: {option}: {value!r} holds {file}, which regrow itself writes.", "Name a folder of your own.")


def _visible(base: Path, paths: Iterable[Path]) -> dict[str, Path]:
    names = {file.relative_to(base).as_posix(): file for file in sorted(paths) if file.is_file()}
    return {name: file for name, file in names.items() if not any(part.startswith(".") for part in Path(name).parts)}


def _walk(folder: Path, option: str, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file of a folder, linked folders too. ``above``: where the walk came through; a link back there is not followed.

    Raises:
        RegrowError: a folder inside may not be read: its rows would be missing without a word.
    """
    real = os.path.realpath(folder)
    if any(place == real or place.startswith(f"{real.rstrip('/')}/") for place in above):
        return
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise RegrowError(f"params.yaml: {option}: {folder} cannot be read: {error.strerror}.", "Give yourself access to it.") from None
    for path in paths:
        yield from _walk(path, option, (*above, real)) if path.is_dir() else (path,)


def _refuse_surrounding(project: Project, folder: Path, option: str, value: str) -> None:
    """A folder around the project would have DVC watch the project's own outputs."""
    if project.root.is_relative_to(folder.resolve()):
        raise RegrowError(f"params.yaml: {option}: {value!r} is the project's folder, or one around it.", "Name a folder of its own.")
