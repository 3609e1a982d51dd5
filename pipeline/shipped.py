"""Where regrow's own files are: in a clone at the top of the repository, in an installed package beside its code."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_CODE = Path(__file__).resolve().parents[1]


@lru_cache(maxsize=64)
def code_folder(project: Path) -> Path:
    """The folder that holds the packages `pipeline` and `stages` which ``python -m pipeline`` runs in ``project``.

    A clone runs its own; any other project runs the installed ones.
    """
    is_clone = all((project / name / "__init__.py").is_file() for name in ("pipeline", "stages"))
    return project if is_clone else _CODE


def shipped_files() -> Path:
    """The folder that holds dvc.yaml, requirements.lock, params.yaml and recipes/ as the repository has them."""
    return _CODE if (_CODE / "dvc.yaml").is_file() else _CODE / "pipeline" / "new" / "files"
