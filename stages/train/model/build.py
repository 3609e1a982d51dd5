"""The model that is trained: the base model, or a LoRA adapter on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import GenerationConfig, set_seed

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.adapters.adapter import add_adapter
from stages.train.adapters.beginning import Batches
from stages.train.model.compilation import compile_layers
from stages.train.model.embeddings import fit_embeddings
from stages.train.model.loading import load_base
from stages.train.model.parts import choose_parts
from stages.train.model.precision import compute_in_8_bits, halve_frozen
from stages.train.model.tiling import tile_mlps
from stages.train.model.untrained import fix_untrained


def build_model(
    base: Path,
    options: TrainOptions,
    largest_id: int = 0,
    tokenizer: Mapping[str, Any] = MappingProxyType({}),
    batches: Batches | None = None,
) -> Any:
    """The model in ``base`` under a new adapter if the options ask for one. Seeds the initialisation.

    ``tokenizer`` is what its manifest says, see :func:`stages.train.model.embeddings.fit_embeddings`; ``batches`` are what an
    adapter may begin from, see :mod:`stages.train.adapters.beginning`.

    Raises:
        RegrowError: it has no embedding for ``largest_id``, cannot be opened, or cannot take new tokens or the adapter.
    """
    set_seed(options.seed)
    model = load_base(base, options)
    fit_embeddings(model, options, tokenizer)
    fix_untrained(model, options)
    _check_vocabulary(model, largest_id)  # before an adapter may wrap the embeddings
    # transformers validates this one at every save and refuses some that published models have; ours is copied instead.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    if options.adapter is not None:
        model = add_adapter(model, options, batches)
    halve_frozen(model, options)
    if options.fp8:
        compute_in_8_bits(model)
    if options.tiled_mlp:
        tile_mlps(model, options.tiled_mlp_num_shards)
    choose_parts(model, options)
    compile_layers(model, options)
    return model


def _check_vocabulary(model: Any, largest_id: int) -> None:
    vocabulary = model.get_input_embeddings().num_embeddings
    if largest_id >= vocabulary:
        raise RegrowError(
            f"data/tokens holds token id {largest_id}, and base_model has embeddings for ids 0 to {vocabulary - 1}.",
            "base_model and tokenizer_config must belong together.",
        )
