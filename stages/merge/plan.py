"""What an adapter makes of its base, before anything is computed: which tensors the merged model has, and from what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import RegrowError
from stages.merge.adapter_config import read_config
from stages.merge.changes import ADAPTER, Adapter, match_tensors
from stages.merge.checkpoint import Checkpoint, Form
from stages.merge.folder import read_model_config
from stages.merge.parameters import wrapped_parameters
from stages.merge.replication import replicate
from stages.merge.tied import Tie, find_tie, must_untie

Layout = Mapping[str, str]
"""Name of a tensor in the merged model → the base's tensor it is made from; they differ for an untied head only."""


@dataclass(frozen=True)
class Plan:
    """What the merged model is made of.

    Attributes:
        config: config.json of the base.
        layout: name of a tensor in the merged model → the base's tensor it is made from.
        tie: of the base's ends, where the adapter changes one of them.
        renamed: a tensor that the adapter changes and the base's files hold in parts; then nothing can be merged file by file.
    """

    config: Mapping[str, Any]
    base: Checkpoint
    adapter: Adapter
    layout: Layout
    tie: Tie | None
    renamed: str | None

    def form(self, name: str) -> Form:
        """Of a merged tensor: the base's dtype, and its shape where no vocabulary was resized."""
        home = self.base.form(self.layout[name])
        return Form(home.dtype, self.adapter.shape(name, home.shape))

    def merge(self, name: str) -> Tensor:
        """A merged tensor, as it is stored."""
        return self.adapter.apply(name, self.base.read(self.layout[name]))

    def merge_exactly(self, name: str) -> Tensor:
        """A merged tensor in float32: what :meth:`merge` rounds."""
        return self.adapter.apply(name, self.base.read(self.layout[name]).float())


def plan_merge(base_folder: Path, trained: Path) -> Plan:
    """Match the adapter in ``trained`` with the base.

    Raises:
        RegrowError: what makes the adapter impossible to merge, by its name.
    """
    model_config = read_model_config(base_folder)
    base, config, tensors = Checkpoint(base_folder), read_config(trained), Checkpoint(trained, ADAPTER)
    wrapped, transposed = wrapped_parameters(base_folder, config.target_parameters)
    adapter = Adapter(config, tensors, match_tensors(tensors.shapes, config, wrapped), transposed)
    tie = _tie(base_folder, base, adapter)
    layout = replicate(base.shapes, config.layer_replication)
    renamed = [name for name in adapter.changes if name not in layout and _is_in_parts(name, adapter)]
    if not renamed:
        _check_targets(layout, adapter, tie)
        _move_ends(layout, base, adapter, tie)
    return Plan(model_config, base, adapter, layout, tie, renamed[0] if renamed else None)


def _is_in_parts(name: str, adapter: Adapter) -> bool:
    """Of a tensor that the base's files lack: whether it is one of a stack of experts, adapted or trained whole."""
    whole = adapter.changes[name].keys() == {"replacement"} and len(adapter.shape(name, ())) == 3
    return whole or name.endswith(tuple(adapter.config.target_parameters))


def _tie(folder: Path, base: Checkpoint, adapter: Adapter) -> Tie | None:
    """Only what lies outside the numbered layers can be tied, so most adapters are merged without importing a model class."""
    outside = any(not re.search(r"\.\d+\.", name) for name in adapter.changes)
    return find_tie(folder, base) if outside else None


def _check_targets(layout: Layout, adapter: Adapter, tie: Tie | None) -> None:
    known = layout.keys() | ({tie.head} if tie else set())
    missing = sorted(adapter.changes.keys() - known)
    if missing:
        raise RegrowError(
            f"{ADAPTER} changes {missing[0]}, which the base does not have ({len(missing)} such tensors).",
            "The adapter belongs to another model, or to one that transformers loads under other names than it stores.",
        )


def _move_ends(layout: dict[str, str], base: Checkpoint, adapter: Adapter, tie: Tie | None) -> None:
    if tie is not None:
        layout.pop(tie.head, None)
        if must_untie(tie, base, adapter):
            layout[tie.head] = tie.embedding
