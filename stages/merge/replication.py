"""Layers that the adapted model has more than once (``layer_replication``), each copy with a change of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.errors import RegrowError

# Where peft looks for layers: `layers`, `encoder.layer` and `h`, inside any number of models.
_LAYER = re.compile(r"(?P<list>(?:\w+\.)*?(?:layers|encoder\.layer|h))\.(?P<number>\d+)\.(?P<rest>.+)")
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def replicate(names: Iterable[str], spans: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Name of each tensor of the adapted model → the base's tensor that it begins from.

    Args:
        names: of the base's tensors.
        spans: ranges of layers [from, to), in the order in which the adapted model has them; empty for the base's own.

    Raises:
        RegrowError: the base has no such layers.
    """
    if not spans:
        return {name: name for name in names}
    sources = _sources(spans)
    layout: dict[str, str] = {}
    seen: set[int] = set()
    for name in names:
        layer = _LAYER.fullmatch(name)
        if layer is None:
            layout[name] = name
            continue
        seen.add(int(layer["number"]))
        layout |= {f"{layer['list']}.{new}.{layer['rest']}": name for new, old in enumerate(sources) if old == int(layer["number"])}
    if absent := sorted(set(sources) - seen):
        raise RegrowError(f"The adapter repeats layer {absent[0]}, which the base does not have.")
    return dict(sorted(layout.items()))


def original_name(name: str, spans: Sequence[tuple[int, int]]) -> str:
    """What the base calls that of which ``name`` is a copy."""
    layer = _LAYER.fullmatch(name)
    return name if layer is None or not spans else f"{layer['list']}.{_sources(spans)[int(layer['number'])]}.{layer['rest']}"


def with_layers(config: Mapping[str, Any], spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What config.json says of the number and the kinds of layers after replication."""
    if not spans:
        return {}
    sources = _sources(spans)
    changed: dict[str, Any] = {key: len(sources) for key in _COUNTS if key in config}
    if isinstance(config.get("layer_types"), list):
        changed["layer_types"] = [config["layer_types"][old] for old in sources]
    return changed


def _sources(spans: Sequence[tuple[int, int]]) -> list[int]:
    return [layer for start, end in spans for layer in range(start, end)]
