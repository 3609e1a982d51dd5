"""What decides a stage's output besides its options and inputs: the code it runs and the versions of its libraries.

Code is taken over the import closure of the stage, as far as it is regrow's and the project's own, from syntax trees without
comments and docstrings: a reworded comment reruns nothing. Library versions come from the lock, for the libraries the closure
imports. A project that holds no code of regrow's runs the installed one, which has the digests of a clone of the same version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.module_code import Code, CodeMemory, parse_module, shortened
from pipeline.shipped import code_folder

# Nothing in these reaches an artifact: options take effect through their values, the others talk to people.
_NO_IDENTITY = ("pipeline.options", "pipeline.errors", "pipeline.process", "pipeline.progress", "stages.train.trackers")
_IDENTITY = ("pipeline.options.dataset_types",)  # names of datasets' types are looked up in it while rows are tokenized
_NO_IDENTITY_PACKAGES = frozenset({"pydantic", "rich", "typer", "huggingface_hub", "fsspec", "typing_extensions"})
_DATA_SUFFIXES = frozenset({".jinja", ".json", ".txt", ".yaml"})
# Distributions that are not called like what they are imported as.
_DISTRIBUTIONS = {"yaml": "pyyaml"}
# Libraries that decide output without being imported by name.
_BRINGS = {"transformers": ("tokenizers", "safetensors"), "trl": ("transformers", "accelerate"), "peft": ("transformers",)}


def code_identity(root: Path, modules: Iterable[str], lock: dict[str, str], memory: CodeMemory | None = None) -> dict[str, Any]:
    """``code``: a digest per file of the import closure of ``modules``; ``packages``: locked versions of what it imports.

    Args:
        root: the project; modules are found from here, regrow's own where `python -m pipeline` finds them.
        modules: dotted names, a stage's package and modules of the user's own.
        lock: versions by canonical distribution name.
        memory: of modules that were parsed before.

    Raises:
        RegrowError: a module is not in the project, or an import is neither there, in Python, nor in the lock.
    """
    files: dict[str, str] = {}
    imported: set[str] = set()
    known = _Modules(root)
    todo = [name for module in modules for name in (module, *known.packages_around(module))]
    while todo:
        module = todo.pop()
        path = known.find(module)
        if path is None:
            raise RegrowError(f"Module {module!r} is not in {root}.")
        name = path.relative_to(_base(root, module)).as_posix()
        if name in files or (module.startswith(_NO_IDENTITY) and module not in _IDENTITY):
            continue
        files[name], names = _read_module(path, module, path.stat().st_mtime_ns, memory)
        files |= _data_files(_base(root, module), path)
        for found in names:
            local = known.longest_local(found)
            if local is None:
                imported.add(found.split(".")[0])
            else:
                todo += [local, *known.packages_around(local)]
    return {"code": files, "packages": _locked_versions(imported, lock)}


@lru_cache(maxsize=1024)
def _read_module(path: Path, module: str, _changed: int, memory: CodeMemory | None) -> Code:
    """A module's code. Stages share modules; ``_changed`` is its time of change."""
    return parse_module(path.read_bytes(), module, path) if memory is None else memory.read(path.read_bytes(), module, path)


def find_module(root: Path, module: str) -> Path | None:
    """The file of a module of regrow's or the project's, or ``None``."""
    base = _base(root, module).joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _base(root: Path, module: str) -> Path:
    """The folder that a module's path starts from."""
    return code_folder(root) if module.partition(".")[0] in ("pipeline", "stages") else root


class _Modules:
    """Modules of regrow's and the project's, each looked for once: a closure names the same few hundred again and again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, Path | None] = {}
        self._is_local: dict[str, bool] = {}

    def find(self, module: str) -> Path | None:
        """As :func:`find_module`."""
        if module not in self._found:
            self._found[module] = find_module(self._root, module) if self._may_be_local(module.partition(".")[0]) else None
        return self._found[module]

    def _may_be_local(self, top: str) -> bool:
        """Whether anything here is called like the first part of a module's name: torch and its like are asked for once."""
        if top not in self._is_local:
            base = _base(self._root, top)
            self._is_local[top] = (base / top).is_dir() or (base / f"{top}.py").is_file()
        return self._is_local[top]

    def longest_local(self, name: str) -> str | None:
        """``a.b.c`` as far as it is a module of regrow's or the project's (``c`` may be a function in ``a/b.py``)."""
        parts = name.split(".")
        candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((candidate for candidate in candidates if self.find(candidate)), None)

    def packages_around(self, module: str) -> list[str]:
        """Packages whose ``__init__.py`` runs when the module is imported."""
        parts = module.split(".")
        names = (".".join(parts[:length]) for length in range(1, len(parts)))
        return [name for name in names if self.find(name)]


def _data_files(base: Path, path: Path) -> dict[str, str]:
    """Templates and tables that a package keeps beside its code are code. Those of packages inside it are theirs."""
    if path.name != "__init__.py":
        return {}
    files = (file for file in sorted(path.parent.rglob("*")) if file.suffix in _DATA_SUFFIXES and not file.name.startswith("."))
    own = (file for file in files if next(folder for folder in file.parents if (folder / "__init__.py").is_file()) == path.parent)
    return {file.relative_to(base).as_posix(): shortened(digest_file(file)) for file in own}


def read_lock(path: Path) -> dict[str, str]:
    """Versions by canonical name from a requirements file of ``name==version`` lines.

    Raises:
        RegrowError: the file is missing or not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RegrowError(f"{path} cannot be read.", "It comes with the repository: git checkout requirements.lock") from None
    lines = (line.split("#")[0].split(";")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {locked_name(name.split("[")[0]): version.strip() for name, _, version in pairs}


def locked_name(name: str) -> str:
    """A distribution's name in the one form that locks are read into."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _locked_versions(imported: set[str], lock: dict[str, str]) -> dict[str, str]:
    wanted = {name for name in imported if name not in sys.stdlib_module_names and name not in _NO_IDENTITY_PACKAGES}
    wanted |= {brought for name in wanted for brought in _BRINGS.get(name, ())}
    names = {locked_name(_DISTRIBUTIONS.get(name, name)) for name in wanted}
    if missing := sorted(names - lock.keys()):
        raise RegrowError(f"{', '.join(missing)}: imported, but not in requirements.lock.", "Add it with `make lock`.")
    return {name: lock[name] for name in sorted(names)}


def check_installed(packages: dict[str, str]) -> None:
    """Refuse to compute with other versions than the lock names: the result would carry a wrong identity.

    An absent package is no matter here: whoever imports it says which option needs it.

    Raises:
        RegrowError: a package has another version. Local version labels (``+cpu``) are not compared.
    """
    from importlib.metadata import PackageNotFoundError, version

    for name, locked in packages.items():
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
        if installed != locked:
            raise RegrowError(f"{name} is {installed} here; requirements.lock says {locked}.", "Run: pip install -r requirements.lock")
