"""Reads a JSON object that someone else wrote: a model's or an adapter's configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError


def read_object(path: Path, what: str, remedy: str = "Download or save it again.") -> dict[str, Any]:
    """The object that a file holds. ``what`` names the file in messages.

    Raises:
        RegrowError: it cannot be read, is no JSON, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegrowError(f"{what} cannot be read: {error.strerror}.", remedy) from None
    except ValueError as error:
        raise RegrowError(f"{what} cannot be read: {error}.", remedy) from None
    except RecursionError:
        raise RegrowError(f"{what} cannot be read: it is nested too deeply.", remedy) from None
    if not isinstance(value, dict):
        raise RegrowError(f"{what} is not a JSON object.", remedy)
    return value
