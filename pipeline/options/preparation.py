"""Axolotl's prepared-data cache, which artifacts replace, and how rows are prepared."""

from __future__ import annotations

from pipeline.options.schema import Group, not_yet, refused, renamed

_ARTIFACTS = "prepared data are artifacts under data/, found again by their content"


class PreparedCache(Group):
    """Where Axolotl keeps prepared data. Read by configure alone."""

    dataset_prepared_path: str | None = refused("Folder of Axolotl's cache of prepared data.", _ARTIFACTS)
    num_dataset_shards_to_save: int | None = refused("Number of files in that cache.", _ARTIFACTS, idle=(1,))
    skip_prepare_dataset: bool | None = not_yet("Hand raw rows to the trainer.", False)
    push_dataset_to_hub: str | None = not_yet("Hub dataset that the prepared data is uploaded to.", execution=True)
    preprocess_iterable: bool | None = refused("In Axolotl: without effect.", "rows are always streamed")


class HubAccess(Group):
    """Read by fetch."""

    hf_use_auth_token: bool | None = not_yet("Log in to the hub with the stored token.", execution=True)


class Preparation(Group):
    """How rows are tokenized; none of it changes what is written. Read by tokenize."""

    dataset_num_proc: int | None = not_yet("Processes that tokenize; default one per CPU.", execution=True, idle=(), ge=1)
    dataset_processes: int | None = renamed("dataset_num_proc")
    dataset_keep_in_memory: bool | None = not_yet("Keep rows in RAM instead of mapping files.", execution=True)
