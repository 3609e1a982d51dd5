"""The merged model. Read by merge."""

from __future__ import annotations

from pipeline.options.schema import LARGEST, Group, Nested, option


class MergeGroup(Nested):
    """Options of the merge stage, which Axolotl has no key for."""

    max_shard_size_mb: int = option(2000, "Largest safetensors file, in MB (1e6 bytes); peak memory is about one file.", ge=1, le=LARGEST)


class Merge(Group):
    """Read by merge."""

    merge: MergeGroup = option(MergeGroup(), "Options of the merge stage.")
