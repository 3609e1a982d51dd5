"""Memory of activations and logits. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, not_yet, option


class ActivationMemory(Group):
    """What is kept for the backward pass."""

    gradient_checkpointing: bool = option(
        False, "Recompute activations in the backward pass instead of keeping them.", later=("offload", "offload_disk", "unsloth")
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = not_yet(
        "Its settings, such as use_reentrant.", idle=({}, {"use_reentrant": False})
    )
    activation_offloading: Literal["legacy", "disk"] | bool | None = not_yet(
        "Keep activations in RAM or on disk.", False, needs="a CUDA GPU"
    )
    chunked_cross_entropy: bool | None = not_yet("Compute the loss in pieces, so that not all logits exist at once.")
    chunked_cross_entropy_num_chunks: int | None = not_yet("Number of pieces; default 8.", idle=(), ge=1)
    tiled_mlp: bool | None = not_yet("Compute MLP layers in pieces of the sequence.")
    tiled_mlp_num_shards: int | None = not_yet("Number of pieces.", idle=(), ge=1)
    tiled_mlp_use_original_mlp: bool | None = not_yet("Take the model's own MLP instead of a rewritten one.", True, idle=())
