"""What `merge.others` names, into data/others: adapters and models to merge with the trained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

from pipeline.artifact import MANIFEST, Draft
from pipeline.errors import RegrowError
from pipeline.options.views import FetchOptions
from stages.fetch.base import check_weights, public_name
from stages.fetch.locate import Located, Locator, Wanted, listed
from stages.fetch.model_files import WEIGHTS, matching

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def write_others(options: FetchOptions, locator: Locator, draft: Draft) -> None:
    """A folder ``00``, ``01``, … for each entry; nothing where there is none.

    The manifest's ``sources`` says of each: folder, kind (``adapter`` or ``model``), path (where others can fetch it too), revision,
    and base: of an adapter that regrow trained, the digest of the base model it was trained on.
    """
    sources: list[dict[str, Any]] = []
    for number, entry in enumerate(options.merge.others or []):
        place = f"merge.others[{number}]"
        wanted = Wanted(f"{place}.path", f"merge-{number:02d}", entry.path, "model", entry.revision, f"{place}.revision")
        located = locator.locate(wanted, lambda names, wanted=wanted: _choose(names, wanted))  # type: ignore[misc]
        sources.append({"folder": f"{number:02d}"} | _copy(located, draft.path / f"{number:02d}"))
    draft.describe(sources=sources)


def _choose(names: Sequence[str], wanted: Wanted) -> list[str]:
    manifest = [MANIFEST] if MANIFEST in names else []
    if all(name in names for name in ADAPTER):
        return [*ADAPTER, *manifest]
    weights = matching(names, WEIGHTS)
    if "config.json" in names and weights and ADAPTER[0] not in names:
        return ["config.json", *weights]
    raise RegrowError(
        f"{wanted.option} {wanted.text!r} is neither an adapter nor a model (there are {listed(names)}).",
        f"An adapter is a folder with {' and '.join(ADAPTER)}, a model one with config.json and model*.safetensors. "
        "Pickles (*.bin, *.pt) are not read: save them as safetensors.",
    )


def _copy(located: Located, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for name in located.files:
        if name != MANIFEST:
            copyfile(located.root / name, folder / name)
    is_adapter = ADAPTER[0] in located.files
    if not is_adapter:
        check_weights(folder, located)
    base = _trained_on(located.root / MANIFEST) if is_adapter and MANIFEST in located.files else None
    kind = "adapter" if is_adapter else "model"
    return {"kind": kind, "path": public_name(located), "revision": located.revision, "base": base}


def _trained_on(manifest: Path) -> str | None:
    try:
        value = json.loads(manifest.read_text(encoding="utf-8"))["inputs"]["base"]
    except (ValueError, KeyError, TypeError):
        return None  # another program's manifest
    return value if isinstance(value, str) else None
