"""The merged model, and what else is merged into it. Read by merge and fetch.

The key `merge` is read in parts: fetch sees where other adapters and models come from, merge how they are joined. So another
weight fetches nothing again, and a model that is found at another place is merged no second time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from pipeline.options.schema import LARGEST, Group, option

MergeMethod = Literal["linear", "ties", "dare_linear", "dare_ties", "slerp"]

_OTHERS = "Adapters and models to merge with the trained one: all of the same base model."
_WEIGHT = (
    "What the change to the base model is multiplied by. slerp: the share, of both weights' sum, of the way from the trained to the other."
)


class OtherSource(Group):
    """The part of an entry that fetch reads."""

    path: str = option(
        ...,
        "Folder, hub id, wheel or bucket of a LoRA adapter (adapter_config.json, adapter_model.safetensors) or of a model "
        "(config.json, model*.safetensors).",
        min_length=1,
    )
    revision: str | None = option(None, "Commit, tag or branch on the hub.", min_length=1)


class OtherShare(Group):
    """The part of an entry that merge reads."""

    weight: float = option(..., _WEIGHT)
    density: float | None = option(None, "Of this one, in place of merge.density.", gt=0, le=1)


class Other(OtherSource, OtherShare):
    """An adapter or a model to merge with the trained one."""

    model_config = ConfigDict(extra="forbid")


class OtherSources(Group):
    """The part of `merge` that fetch reads."""

    others: list[OtherSource] | None = option(None, _OTHERS, min_length=1)


class HowMerged(Group):
    """The part of `merge` that merge reads."""

    max_shard_size_mb: int = option(2000, "Largest safetensors file, in MB (1e6 bytes).", ge=1, le=LARGEST)
    parity_rows: int = option(
        4,
        "Rows on which the merged model must compute what the adapter computes beside its base: the first that are held out, else trained. "
        "0: it is not checked.",
        ge=0,
        le=64,
    )
    method: MergeMethod | None = option(
        None,
        "How the trained adapter or model is merged with `others`, by their changes to the base: linear adds them; ties adds what agrees "
        "in sign, of the largest; dare_linear and dare_ties, of randomly kept ones; slerp goes along the arc between two models.",
        gone=(("dare", "there are two of them", "write dare_linear or dare_ties"),),
    )
    weight: float | None = option(None, f"Of the trained adapter or model. {_WEIGHT}")
    density: float | None = option(
        None, "ties, dare_linear, dare_ties: the share of each tensor's changes that is kept, the largest or random ones.", gt=0, le=1
    )
    seed: int | None = option(None, "dare_linear, dare_ties: of what is kept; 42 if not given.", ge=0, le=LARGEST)
    others: list[OtherShare] | None = option(None, _OTHERS, min_length=1)


class MergeGroup(HowMerged, OtherSources):
    """Options of the merge stage, which Axolotl has no key for, whole."""

    model_config = ConfigDict(extra="forbid")

    others: list[Other] | None = option(None, _OTHERS, min_length=1)  # type: ignore[assignment]


class MergeSources(Group):
    """Read by fetch."""

    merge: OtherSources = option(OtherSources(), "Options of the merge stage.")


class Merge(Group):
    """Read by merge."""

    merge: HowMerged = option(HowMerged(), "Options of the merge stage.")


class WholeMerge(MergeSources, Merge):
    """All of it, as params.yaml gives it."""

    merge: MergeGroup = option(MergeGroup(), "Options of the merge stage.")
