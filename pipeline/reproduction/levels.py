"""How far each stage promises the same bytes, and whether this machine is one that the promise is about.

* L0: data stages, on every machine.
* L1: training on a CPU, on the same kind of CPU with as many threads. Judging (eval) computes the same way.
* L2: the same on a GPU, on the same model of GPU.
* L3: merge, which multiplies matrices, on the same kind of machine as well.
* L4: quantise, on the same class of device: CPUs, or GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError

_DATA = ("configure", "fetch", "tokenize", "dedupe", "pack")


def level(stage: str, machine: Mapping[str, Any]) -> str:
    """The level of a stage, L0 to L4. ``machine``: what training noticed of it; empty where nothing was trained."""
    if stage in _DATA:
        return "L0"
    return {"merge": "L3", "quantize": "L4"}.get(stage, "L2" if "gpu" in machine else "L1")


def trained_on(data: Path) -> Mapping[str, Any]:
    """``determinism`` of the run that wrote ``data/trained``: ``holds_on``, ``prevented``. Empty where its run record is not there."""
    try:
        record = json.loads((data / "metrics" / "train.json").read_text(encoding="utf-8"))
        found: Mapping[str, Any] = record["determinism"]
        is_its = record["outputs"]["trained"] == open_artifact(data / "trained", verify=False).digest  # and not one from DVC's cache
    except (OSError, ValueError, KeyError, RegrowError):
        return {}
    return found if is_its else {}


def excuse(stage: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why a stage may differ here although its inputs are the same; ``None``: it may not, or nothing is known of the machine before.

    Args:
        before, now: ``determinism`` of the training there and here.
    """
    if stage in _DATA or not before or not now:
        return None
    if stage == "train" and (reasons := [*before["prevented"], *now["prevented"]]):
        return f"not promised: {reasons[0]}"
    there, here = before["holds_on"], now["holds_on"]
    if stage == "quantize":
        return None if ("gpu" in there) == ("gpu" in here) else "another class of device"
    different = [f"{name} {there.get(name)} before, {here.get(name)} here" for name in sorted(there.keys() | here.keys())
                 if there.get(name) != here.get(name)]  # fmt: skip
    return f"another machine: {different[0]}" if different else None
