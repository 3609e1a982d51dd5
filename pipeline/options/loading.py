"""How batches reach the model. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, Nested, not_yet, option, refused

_DEALT = "regrow deals out batches itself, in an order that follows from the seed alone"


class AcceleratorConfig(Nested):
    """What of accelerate's configuration is left to choose."""

    non_blocking: bool = option(False, "Copy batches to the GPU while it computes; wants dataloader_pin_memory.", execution=True)
    split_batches: bool | None = refused("Cut batches into parts for the processes.", _DEALT, "set micro_batch_size")
    dispatch_batches: bool | None = refused("Let the first process read for all.", _DEALT)
    even_batches: bool | None = refused("Repeat bins until all processes have equally many.", "empty bins fill up", idle=(True,))
    use_seedable_sampler: bool | None = refused("Shuffle with accelerate's sampler.", _DEALT, idle=(True,))
    use_configured_state: bool | None = refused("Take over an Accelerator that exists.", "train makes its own")
    gradient_accumulation_kwargs: dict[str, Any] | None = refused(
        "How accelerate accumulates gradients.", "the trainer does", "set gradient_accumulation_steps", idle=({},)
    )


class DataLoading(Group):
    """Read by train; workers and pinned memory do not change what is trained."""

    dataloader_num_workers: int = option(0, "Processes that prepare batches; 0: the training process does.", execution=True, ge=0, le=1024)
    dataloader_pin_memory: bool | None = option(
        None, "Prepare batches in page-locked memory, for faster copies to a GPU; default true where there is one.", execution=True
    )
    dataloader_prefetch_factor: int | None = option(
        None, "Batches that each of dataloader_num_workers prepares ahead; default 2.", execution=True, ge=1, le=LARGEST
    )
    dataloader_drop_last: bool = option(
        False,
        "Leave out the bins of an epoch, others each time, that do not fill a micro-batch of every process. (Axolotl: true with packing.)",
    )
    remove_unused_columns: bool | None = option(
        None, "Kept by either value: batches hold what the model takes and nothing else, so nothing is there to remove.", execution=True
    )
    accelerator_config: AcceleratorConfig | None = option(None, "Settings of accelerate's Accelerator.", execution=True)


class Padding(Group):
    """Read by train."""

    pad_to_sequence_len: bool = option(
        False,
        "Pad every batch to sequence_len, so that all have one shape; else a batch is as long as its longest row. Pads are not trained.",
    )
    pad_to_multiple_of: int | None = option(None, "Pad every batch to a multiple of so many tokens.", newer=True, ge=1, le=LARGEST)
    batch_flattening: Literal["auto"] | bool | None = option(
        None,
        "Join the rows of a micro-batch into one without padding; they never attend to each other. auto: where the attention kernel "
        "computes them one by one (varlen, FlashAttention).",
    )
    multipack_real_batches: bool | None = option(
        None, "false: with sample_packing, join the bins of a micro-batch into one row instead of stacking them; default true."
    )
    group_by_length: bool = option(
        False, "Put bins of similar length into the same micro-batch, so that less is padding; micro-batches still come shuffled."
    )


class Images(Group):
    """Read by train."""

    image_size: int | tuple[int, int] | None = not_yet("Resize images to this side, or to width and height.", idle=())
    image_resize_algorithm: Literal["bilinear", "bicubic", "lanczos"] | int | None = not_yet(
        "How images are resized; default bilinear.", idle=()
    )
