"""Patterns of parameter names, as `unfrozen_parameters` has them."""

from __future__ import annotations

import re


def parameter_pattern(name: str) -> re.Pattern[str]:
    """What matches the beginning of a name. A dot, escaped or not, is a dot, except in ``.+`` and ``.*``, which nobody writes for one."""
    return re.compile(re.sub(r"(?<!\\)\.(?![+*])", r"\\.", name))
