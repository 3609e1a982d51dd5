"""A model directory from what was trained and others, merged tensor by tensor by `merge.method`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Size, Tensor

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError, StaleInput
from pipeline.options.merge import HowMerged
from pipeline.progress import Progress
from stages.merge.card import CARD, copy_card
from stages.merge.checkpoint import Checkpoint
from stages.merge.folder import MODEL_FILES, TOKENIZER_FILES, copy_files, read_model_config, write_model_config
from stages.merge.several.combining import Combination, Share
from stages.merge.several.sources import Source, open_adapter, open_model
from stages.merge.shards import write_files
from stages.merge.tied import Tie, find_tie

SEED = 42
"""Of DARE, where `merge.seed` is not given."""


def merge_several(
    options: HowMerged, base: Artifact, trained: Artifact, others: Artifact, destination: Path, progress: Progress
) -> dict[str, Any]:
    """Write the merged model. Memory: with two sources, about seven times the largest tensor in float32.

    Returns:
        Facts about the result: method, tensors, changed, parameters, bytes, files, dtype.

    Raises:
        RegrowError: a source that cannot be merged, or does not fit the base.
        StaleInput: ``others`` is not what ``options`` name.
    """
    sources = _open_sources(base, trained, others)
    weights, folder = Checkpoint(base.path), base.path
    plan = _plan(folder, weights, sources)
    combination = combination_of(options, len(sources))
    changed: list[str] = []

    def tensor(name: str) -> Tensor:
        merged = plan.merge(name, combination)
        changed.extend([name] if not merged.equal(weights.read(plan.layout[name])) else [])
        return merged

    forms = {name: weights.form(home) for name, home in plan.layout.items()}
    with progress.task("merge", total=len(forms), unit="tensors") as task:
        files = write_files(destination, forms, options.max_shard_size_mb * 1_000_000, tensor, task)
    config = read_model_config(folder)
    write_model_config(config, destination, weights.main_dtype(), untied=plan.tie is not None and plan.tie.head in plan.layout)
    copy_files(folder, destination, MODEL_FILES)
    copy_files(trained.path, destination, TOKENIZER_FILES)
    _write_card(trained, others, destination, combination)
    return {
        "method": combination.method,
        "tensors": len(forms),
        "changed": len(changed),
        "parameters": sum(Size(form.shape).numel() for form in forms.values()),
        "bytes": sum((destination / name).stat().st_size for name in files),
        "files": len(files),
        "dtype": weights.main_dtype(),
    }


def combination_of(options: HowMerged, sources: int) -> Combination:
    """What the options say of the trained one, and of the others in their order.

    Raises:
        StaleInput: there are not so many.
    """
    entries = options.others or []
    assert options.method is not None and options.weight is not None
    if len(entries) + 1 != sources:
        found = f"merge.others names {len(entries)} sources, and data/others holds {sources - 1}."
        raise StaleInput(found, "Run `dvc repro`: it fetches them.")
    density = 1.0 if options.density is None else options.density
    shares = [Share(options.weight, density)]
    shares += [Share(entry.weight, density if entry.density is None else entry.density) for entry in entries]
    return Combination(options.method, shares, SEED if options.seed is None else options.seed)


@dataclass(frozen=True)
class _Plan:
    """The tensors to write: name → the base's tensor it begins from. They differ for an untied head only."""

    layout: dict[str, str]
    tie: Tie | None
    base: Checkpoint
    sources: Sequence[Source]

    def merge(self, name: str, combination: Combination) -> Tensor:
        """The base's own tensor where no source changes it."""
        home = self.layout[name]
        stored = self.base.read(home)
        weight = stored.float()
        deltas = [source.delta(name, home, weight) for source in self.sources]
        if all(delta is None for delta in deltas):
            return stored
        if not stored.is_floating_point() or stored.element_size() < 2:
            raise RegrowError(f"The base stores {name} as {stored.dtype}, which cannot be merged.", "Use a base model in full precision.")
        same = weight.new_zeros(()).expand_as(weight)
        merged = combination.apply(name, weight, [same if delta is None else delta for delta in deltas]).to(stored.dtype)
        if not merged.isfinite().all():
            raise RegrowError(f"merge.method {combination.method} makes {name} infinite or not a number.", "Give smaller weights.")
        return merged


def _plan(folder: Path, base: Checkpoint, sources: Sequence[Source]) -> _Plan:
    outside = any(not re.search(r"\.\d+\.", name) for source in sources for name in source.touches())
    tie = find_tie(folder, base) if outside else None
    layout = {name: name for name in base.shapes if tie is None or name != tie.head}
    for source in sources:
        source.check({name: base.shapes[name] for name in layout}, tie)
    if tie is not None and any(source.needs_head(tie, base) for source in sources):
        layout[tie.head] = tie.embedding
    return _Plan(layout, tie, base, sources)


def _open_sources(base: Artifact, trained: Artifact, others: Artifact) -> list[Source]:
    what = "data/trained"
    is_adapter = trained.content.get("kind") == "adapter"
    sources: list[Source] = [open_adapter(what, trained.path, base.path) if is_adapter else open_model(what, trained.path)]
    for number, facts in enumerate(others.content["sources"]):
        what, folder = f"merge.others[{number}]", others.path / facts["folder"]
        if facts.get("base") not in (None, base.digest):
            raise RegrowError(f"{what} was trained on another base model than data/base.", "Name adapters of this base model.")
        sources.append(open_adapter(what, folder, base.path) if facts["kind"] == "adapter" else open_model(what, folder))
    return sources


def _write_card(trained: Artifact, others: Artifact, destination: Path, combination: Combination) -> None:
    copy_card(trained.path, destination, merged=trained.content.get("kind") == "adapter")
    card = destination / CARD
    if not card.is_file():
        return
    names = ["the model described above", *(facts["path"] or f"another {facts['kind']}" for facts in others.content["sources"])]
    lines = [f"- {name}: weight {share.weight:g}" for name, share in zip(names, combination.shares, strict=True)]
    added = "\n".join(["## Merged with others", "", f"By the method {combination.method}:", "", *lines])
    card.write_text(f"{card.read_text(encoding='utf-8').rstrip()}\n\n{added}\n", encoding="utf-8")
