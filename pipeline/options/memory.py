"""Memory of activations and logits. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, not_yet, option


class ActivationMemory(Group):
    """What is kept for the backward pass."""

    gradient_checkpointing: Literal["offload", "offload_disk"] | bool = option(
        False,
        "Recompute activations in the backward pass instead of keeping them; `offload` and `offload_disk` also set activation_offloading.",
        later=("unsloth",),
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = option(
        None, "Its settings: use_reentrant (default false), preserve_rng_state, determinism_check, every_n_layers."
    )
    activation_offloading: Literal["legacy", "disk"] | bool = option(
        False,
        "Keep activations in RAM until the backward pass (`legacy`: not page-locked), which needs a CUDA GPU, or on disk, which does not.",
    )
    chunked_cross_entropy: bool = option(False, "Compute the loss in pieces, so that the logits of a batch never exist at once.")
    chunked_cross_entropy_num_chunks: int = option(8, "Number of pieces.", ge=1, le=LARGEST)
    tiled_mlp: bool = option(False, "Compute MLP layers in pieces of the sequence, each again in the backward pass.")
    tiled_mlp_num_shards: int | None = option(
        None, "Number of pieces; default one for as many tokens as the model is wide.", ge=1, le=LARGEST
    )
    tiled_mlp_use_original_mlp: bool | None = not_yet("Take the model's own MLP instead of a rewritten one.", True, idle=())
