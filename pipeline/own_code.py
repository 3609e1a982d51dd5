"""Functions of the user's own, named by dotted path and looked for beside params.yaml."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError


def find_function(name: str, option: str) -> Callable[..., Any]:
    """The function that ``option`` names.

    Raises:
        RegrowError: it cannot be imported, or is none.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _, attribute = name.rpartition(".")
    works = "Name a function by its dotted path, as `package.module.function`; it is looked for beside params.yaml."
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise RegrowError(f"{option}: {name!r} cannot be imported: {type(error).__name__}: {error}.", works) from error
    if not callable(found):
        raise RegrowError(f"{option}: {name!r} is no function.", works)
    function: Callable[..., Any] = found
    return function
