"""Packages that only some options need: there, and in the version whose results are recorded."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from pipeline.errors import MissingExtra, RegrowError
from pipeline.optimizers import PINNED


def require(needed_for: str, package: str) -> None:
    """Check that ``package`` can be imported.

    Raises:
        RegrowError: it is missing, or of another version than regrow names.
    """
    distribution, wanted, extra = PINNED[package]
    if find_spec(package) is None:
        raise MissingExtra(needed_for, distribution, extra)
    if (found := version(distribution).partition("+")[0]) != wanted:
        raise RegrowError(
            f"{needed_for}: {distribution} is {found} here; results are those of {wanted}.", f"Run: pip install 'regrow[{extra}]'"
        )
