"""Batch sizes settled: accumulation that follows from `batch_size`, and smaller micro batches of the same global batch."""

from __future__ import annotations

from accelerate.utils.memory import should_reduce_batch_size

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from pipeline.steps import accumulation_steps


class OutOfMemory(RegrowError):
    """A micro batch that the device could not hold."""


def settle_batches(options: TrainOptions, world_size: int, micro_batch_size: int | None = None) -> TrainOptions:
    """Options with ``gradient_accumulation_steps`` set for the same global batch in micro batches of ``micro_batch_size``.

    Raises:
        RegrowError: the processes cannot share a global batch evenly, or cannot look for its size together.
    """
    if options.auto_find_batch_size and world_size > 1:
        raise RegrowError(
            f"auto_find_batch_size: true, and {world_size} processes train together: one without memory would leave the others waiting.",
            "Find micro_batch_size with one process, and remove auto_find_batch_size.",
        )
    accumulation = accumulation_steps(options, world_size)
    micro = micro_batch_size or options.micro_batch_size
    settled = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation * options.micro_batch_size // micro}
    return options.model_copy(update=settled | {"batch_size": None})


def halved(options: TrainOptions) -> TrainOptions:
    """The same global batch in micro batches of half the size; where that is odd, of its largest divisor."""
    micro = options.micro_batch_size
    factor = next(number for number in range(2, micro + 1) if micro % number == 0)
    update = {"micro_batch_size": micro // factor, "gradient_accumulation_steps": options.gradient_accumulation_steps * factor}
    return options.model_copy(update=update)


def out_of_memory(error: RuntimeError, options: TrainOptions) -> OutOfMemory | None:
    """What a user can act on, if ``error`` says that memory ran out."""
    if not should_reduce_batch_size(error):
        return None
    micro = options.micro_batch_size
    accumulation = options.gradient_accumulation_steps * 2
    smaller = f"Set micro_batch_size: {micro // 2} and gradient_accumulation_steps: {accumulation}, or auto_find_batch_size: true; "
    advice = "gradient_checkpointing: true saves memory too" + (", and so does a smaller sequence_len." if micro == 1 else ".")
    said = str(error).splitlines()[0]
    return OutOfMemory(f"Memory ran out with micro_batch_size {micro}: {said}", (smaller if micro > 1 else "") + advice)
