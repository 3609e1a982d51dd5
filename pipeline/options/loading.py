"""How batches reach the model. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, not_yet, option


class DataLoading(Group):
    """Read by train; workers and pinned memory do not change what is trained."""

    dataloader_num_workers: int | None = not_yet("Processes that prepare batches.", execution=True, idle=(), ge=0)
    dataloader_pin_memory: bool | None = not_yet(
        "Prepare batches in page-locked memory, for faster copies to a GPU.", execution=True, idle=()
    )
    dataloader_prefetch_factor: int | None = not_yet("Batches that each process prepares ahead.", execution=True, idle=(), ge=1)
    dataloader_drop_last: bool | None = not_yet("Leave out a last batch that is not full.")
    remove_unused_columns: bool | None = not_yet("Hand the trainer only what the model takes, as regrow does.", idle=(True,))
    accelerator_config: dict[str, Any] | None = not_yet("Settings of accelerate's Accelerator.", idle=({},))


class Padding(Group):
    """Read by train."""

    pad_to_sequence_len: bool = option(
        False,
        "Pad every batch to sequence_len, so that all have one shape; else a batch is as long as its longest row. Pads are not trained.",
    )
    pad_to_multiple_of: int | None = option(None, "Pad every batch to a multiple of so many tokens.", newer=True, ge=1, le=LARGEST)
    batch_flattening: Literal["auto"] | bool | None = not_yet(
        "Join the rows of a batch without padding.", needs="a CUDA GPU and flash attention"
    )
    multipack_real_batches: bool | None = not_yet("Several bins per batch instead of one long one.", idle=())
    group_by_length: bool | None = not_yet("Put rows of similar length into the same batch.")


class Images(Group):
    """Read by train."""

    image_size: int | tuple[int, int] | None = not_yet("Resize images to this side, or to width and height.", idle=())
    image_resize_algorithm: Literal["bilinear", "bicubic", "lanczos"] | int | None = not_yet(
        "How images are resized; default bilinear.", idle=()
    )
