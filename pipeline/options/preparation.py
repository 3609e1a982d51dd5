"""Axolotl's prepared-data cache, which artifacts replace, and how rows are prepared."""

from __future__ import annotations

from pipeline.options.schema import Group, Nested, not_yet, option, refused, renamed

_ARTIFACTS = "prepared data are artifacts under data/, found again by their content"


class PreparedCache(Group):
    """Where Axolotl keeps prepared data. Read by configure alone."""

    num_dataset_shards_to_save: int | None = refused("Number of files in that cache.", _ARTIFACTS, idle=(1,))
    skip_prepare_dataset: bool | None = not_yet("Hand raw rows to the trainer.", False)
    push_dataset_to_hub: str | None = not_yet("Hub dataset that the prepared data is uploaded to.", execution=True)
    preprocess_iterable: bool | None = refused("In Axolotl: without effect.", "rows are always streamed")


class TokenCache(Group):
    """Read by tokenize."""

    dataset_prepared_path: str | None = option(
        None,
        "Folder in which tokenized blocks of rows are kept, so that appended rows cost only themselves; default .regrow/cache/tokenize. "
        "Blocks are found by their content, so a stale one is never used.",
        execution=True,
        min_length=1,
    )


class FetchGroup(Nested):
    """Options of the fetch stage that Axolotl has no key for."""

    retries: int = option(
        3, "How often an interrupted download is tried again, after waits of 1, 2, 4 seconds and so on.", execution=True, ge=0, le=100
    )


class Access(Group):
    """How fetch reaches what it fetches."""

    fetch: FetchGroup = option(FetchGroup(), "Options of the fetch stage.")
    hf_use_auth_token: bool | None = option(None, "Log in to the hub with the stored token; not set: if there is one.", execution=True)


class Preparation(Group):
    """How rows are tokenized; none of it changes what is written. Read by tokenize."""

    dataset_num_proc: int | None = option(
        None, "Processes that tokenize; default one per CPU. Any number writes the same.", execution=True, ge=1
    )
    dataset_processes: int | None = renamed("dataset_num_proc")
    dataset_keep_in_memory: bool | None = refused(
        "Keep rows in RAM instead of mapping files.", "rows are streamed, in blocks of about a megabyte, and tokens are memory-mapped"
    )
