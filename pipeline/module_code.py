"""What a Python module's code is, apart from how it is written: a digest of its syntax tree, and the names it imports.

Parsing the modules of all stages takes two seconds, so what was found is remembered by the bytes of the module.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.digest import digest_json
from pipeline.errors import RegrowError

Code = tuple[str, tuple[str, ...]]
"""Digest of a module's code, and the absolute names it imports."""


class CodeMemory:
    """Modules that were parsed before. The file at ``path`` holds them by content, so it is never out of date; without it all is parsed.

    Only :meth:`save` writes. A file that is damaged, or was made by other code or another Python than this, counts for nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loaded: dict[str, list[Any]] | None = None
        self._used: dict[str, list[Any]] = {}

    def read(self, source: bytes, module: str, path: Path) -> Code:
        """A module's code, parsed if it has to be. Raises RegrowError if it is not valid Python."""
        key = hashlib.sha256(f"{module} {path.name == '__init__.py'}\n".encode() + source).hexdigest()
        if key not in self._used:
            known = self._entries().get(key)
            if known is None:
                digest, imports = parse_module(source, module, path)
                known = [digest, list(imports)]
            self._used[key] = known
        digest, imports = self._used[key]
        return digest, tuple(imports)

    def save(self) -> None:
        """Keep what was read since, and nothing else; by rename, so that whoever reads meanwhile finds the old file or the new one."""
        if self._used == self._entries():
            return
        text = json.dumps(self._used)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            draft.write_text(f"{self._seal(text)}\n{text}", encoding="utf-8")
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)
        self._loaded = dict(self._used)

    def _entries(self) -> dict[str, list[Any]]:
        if self._loaded is None:
            try:
                seal, _, text = self._path.read_text(encoding="utf-8").partition("\n")
                self._loaded = json.loads(text) if seal == self._seal(text) else {}
            except (OSError, ValueError):
                self._loaded = {}
        return self._loaded

    @staticmethod
    def _seal(text: str) -> str:
        return hashlib.sha256(f"{_maker()}\n{text}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _maker() -> str:
    """What decides the entries besides the modules: this file, and the Python whose syntax trees they are."""
    return f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {sys.version}"


def parse_module(source: bytes, module: str, path: Path) -> Code:
    """Digest of a module's code and the absolute names it imports.

    Raises:
        RegrowError: it is not valid Python.
    """
    try:
        tree = ast.parse(source, filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise RegrowError(f"{path} is not valid Python: {error}.") from None
    return shortened(digest_json(_normal_form(tree))), tuple(_imports(tree, module, is_package=path.name == "__init__.py"))


def shortened(digest: str) -> str:
    """64 bits: enough to notice a change, short enough to read in a diff."""
    return digest[:16]


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
