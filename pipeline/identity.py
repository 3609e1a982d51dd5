"""What decides a stage's output besides its options and inputs: the code it runs and the versions of its libraries.

Code is taken over the import closure of the stage inside this repository, from syntax trees without comments and
docstrings: a reworded comment reruns nothing. Library versions come from the lock, for the libraries the closure imports.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.digest import digest_file, digest_json
from pipeline.errors import RegrowError

# Nothing in these reaches an artifact: options take effect through their values, the others talk to people.
_NO_IDENTITY = ("pipeline.options", "pipeline.errors", "pipeline.process", "pipeline.progress")
_IDENTITY = ("pipeline.options.dataset_types",)  # names of datasets' types are looked up in it while rows are tokenized
_NO_IDENTITY_PACKAGES = frozenset({"pydantic", "rich", "typer", "huggingface_hub", "fsspec", "typing_extensions"})
_DATA_SUFFIXES = frozenset({".jinja", ".json", ".txt", ".yaml"})
# Distributions that are not called like what they are imported as.
_DISTRIBUTIONS = {"yaml": "pyyaml"}
# Libraries that decide output without being imported by name.
_BRINGS = {"transformers": ("tokenizers", "safetensors"), "trl": ("transformers", "accelerate"), "peft": ("transformers",)}


def code_identity(root: Path, modules: Iterable[str], lock: dict[str, str]) -> dict[str, Any]:
    """``code``: a digest per file of the import closure of ``modules``; ``packages``: locked versions of what it imports.

    Args:
        root: the repository; modules are found from here.
        modules: dotted names, a stage's package and modules of the user's own.
        lock: versions by canonical distribution name.

    Raises:
        RegrowError: a module is not in the repository, or an import is neither there, in Python, nor in the lock.
    """
    files: dict[str, str] = {}
    imported: set[str] = set()
    todo = [name for module in modules for name in (module, *_packages_around(root, module))]
    while todo:
        module = todo.pop()
        path = find_module(root, module)
        if path is None:
            raise RegrowError(f"Module {module!r} is not in {root}.")
        name = path.relative_to(root).as_posix()
        if name in files or (module.startswith(_NO_IDENTITY) and module not in _IDENTITY):
            continue
        files[name], names = _read_module(path, module, path.stat().st_mtime_ns)
        files |= _data_files(root, path)
        for found in names:
            local = _longest_local(root, found)
            if local is None:
                imported.add(found.split(".")[0])
            else:
                todo += [local, *_packages_around(root, local)]
    return {"code": files, "packages": _locked_versions(imported, lock)}


@lru_cache(maxsize=1024)
def _read_module(path: Path, module: str, _changed: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's code and the absolute names it imports. Stages share modules; ``_changed`` is its time of change."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise RegrowError(f"{path} is not valid Python: {error}.") from None
    return _shortened(digest_json(_normal_form(tree))), tuple(_imports(tree, module, is_package=path.name == "__init__.py"))


def _shortened(digest: str) -> str:
    """64 bits: enough to notice a change, short enough to read in a diff."""
    return digest[:16]


def find_module(root: Path, module: str) -> Path | None:
    """The file of a module of this repository, or ``None``."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _longest_local(root: Path, name: str) -> str | None:
    """``a.b.c`` as far as it is a module of this repository (``c`` may be a function in ``a/b.py``)."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if find_module(root, ".".join(parts[:length])):
            return ".".join(parts[:length])
    return None


def _packages_around(root: Path, module: str) -> list[str]:
    """Packages whose ``__init__.py`` runs when the module is imported."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(1, len(parts)))
    return [name for name in names if find_module(root, name)]


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Every name imported anywhere in a module, in functions too, as an absolute dotted name."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _data_files(root: Path, path: Path) -> dict[str, str]:
    """Templates and tables that a package keeps beside its code are code. Those of packages inside it are theirs."""
    if path.name != "__init__.py":
        return {}
    files = (file for file in sorted(path.parent.rglob("*")) if file.suffix in _DATA_SUFFIXES and not file.name.startswith("."))
    own = (file for file in files if next(folder for folder in file.parents if (folder / "__init__.py").is_file()) == path.parent)
    return {file.relative_to(root).as_posix(): _shortened(digest_file(file)) for file in own}


def _normal_form(node: Any) -> Any:
    """A syntax tree as plain values, without positions, docstrings and empty fields, so that newer Pythons agree."""
    if isinstance(node, ast.AST):
        fields = {name: _normal_form(value) for name, value in _fields(node)}
        return [type(node).__name__, {name: value for name, value in fields.items() if value not in (None, [])}]
    if isinstance(node, list):
        return [_normal_form(item) for item in node]
    return node if node is None or isinstance(node, (str, int, bool)) else repr(node)


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if name in ("type_comment", "kind", "ctx"):
            continue
        is_block = name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        yield name, value[1:] if is_block and _starts_with_text(value) else value


def _starts_with_text(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


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
    return {_canonical_name(name.split("[")[0]): version.strip() for name, _, version in pairs}


def _canonical_name(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _locked_versions(imported: set[str], lock: dict[str, str]) -> dict[str, str]:
    wanted = {name for name in imported if name not in sys.stdlib_module_names and name not in _NO_IDENTITY_PACKAGES}
    wanted |= {brought for name in wanted for brought in _BRINGS.get(name, ())}
    names = {_canonical_name(_DISTRIBUTIONS.get(name, name)) for name in wanted}
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
