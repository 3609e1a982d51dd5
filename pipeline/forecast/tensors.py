"""Names and shapes of a model's tensors, from the headers of its safetensors files alone."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.options.schema import Group
from pipeline.options.views import TrainOptions
from pipeline.parameter_patterns import parameter_pattern

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor, by name."""

_EMBEDDING = re.compile(r"embed_tokens|embed_in|wte|wpe|word_embeddings")
_NOT_LINEAR = re.compile(r"embed|wte|wpe|norm|ln_|lm_head|embed_out|\brouter\b|rotary")


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of every tensor in ``folder``. A file begins with the length of its header, 8 bytes, and the header in JSON."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        found |= {name: tuple(facts["shape"]) for name, facts in header.items() if name != "__metadata__"}
    return found


def count(shapes: Shapes) -> int:
    """Numbers in all tensors."""
    return sum(math.prod(shape) for shape in shapes.values())


def linear(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Weights of linear modules except the output head, by the names of the modules. Known by their names: files hold no types."""
    matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2}
    return {name: shape for name, shape in matrices.items() if not _NOT_LINEAR.search(name.lower())}


def value_of(options: Group, name: str) -> object:
    """An option's value; nothing for one that does not work yet, which no stage may read."""
    return None if name in getattr(type(options), "unread", ()) else getattr(options, name)


def targets(options: TrainOptions, shapes: Shapes, model_type: str) -> dict[str, tuple[int, ...]]:
    """The modules that a LoRA adapter changes, with the shapes of their weights."""
    modules = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2}
    wanted = options.lora_target_modules
    if wanted is None and not options.lora_target_linear:
        wanted = _usual_targets(model_type)
    found: dict[str, tuple[int, ...]] = linear(shapes) if options.lora_target_linear or wanted == "all-linear" else {}
    if wanted is not None and wanted != "all-linear":
        found |= {name: shape for name, shape in modules.items() if _is_named(name, wanted)}
    left_out, layers = value_of(options, "lora_exclude_modules"), value_of(options, "peft_layers_to_transform")
    if isinstance(left_out, str | list):
        found = {name: shape for name, shape in found.items() if not _is_named(name, left_out)}
    if isinstance(layers, list) and layers:
        found = {name: shape for name, shape in found.items() if _layer(name) in layers}
    return found


def _is_named(name: str, wanted: str | Sequence[str]) -> bool:
    """As PEFT compares: a regular expression for the whole name, or a list of ends."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in wanted)


def _layer(name: str) -> int | None:
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def _usual_targets(model_type: str) -> list[str]:
    """What PEFT adapts in an architecture where nothing is named."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    return list(USUAL.get(model_type, []))


def adapter_size(options: TrainOptions, shapes: Shapes, model_type: str) -> int:
    """Numbers in a new adapter: two matrices of rank r for each target; for DoRA a magnitude per output; modules trained whole."""
    size = 0
    for name, shape in targets(options, shapes, model_type).items():
        size += _rank(options, name) * sum(shape) + (shape[0] if options.peft_use_dora else 0)
    whole = value_of(options, "lora_modules_to_save")
    if isinstance(whole, list):
        size += count({name: shape for name, shape in shapes.items() if _is_named(name.rpartition(".")[0], whole)})
    return size


def _rank(options: TrainOptions, name: str) -> int:
    """Of one module: ``lora_rank_pattern`` may name it by the end of its name, or a pattern for it."""
    patterns = value_of(options, "lora_rank_pattern")
    found = (rank for key, rank in (patterns or {}).items() if re.match(rf"(?:.*\.)?(?:{key})$", name))  # type: ignore[attr-defined]
    return next(found, options.lora_r)


def unfrozen(options: TrainOptions, shapes: Shapes) -> int:
    """Numbers that full fine-tuning trains: all, or those that unfrozen_parameters names."""
    return count(_unfrozen(options, shapes))


def _unfrozen(options: TrainOptions, shapes: Shapes) -> Shapes:
    names = [parameter_pattern(re.sub(r"\[\d*(:\d*)?\]$", "", pattern)) for pattern in options.unfrozen_parameters or []]
    return {name: shape for name, shape in shapes.items() if any(pattern.match(name) for pattern in names)} if names else shapes


def in_layers(shapes: Shapes) -> int:
    """Numbers of what is inside of layers."""
    return count({name: shape for name, shape in shapes.items() if _layer(name) is not None})


def trained_layers(options: TrainOptions, shapes: Shapes, model_type: str, layers: int) -> tuple[int, int]:
    """How many layers are trained, and how many others gradients pass through: those above the lowest that is trained."""
    if options.lisa_n_layers is not None:
        return min(options.lisa_n_layers, layers), max(layers - options.lisa_n_layers, 0)
    if not options.adapter and not options.unfrozen_parameters:
        return layers, 0
    names = list(_adapted(options, shapes, model_type) if options.adapter else _unfrozen(options, shapes))
    found = {layer for name in names if (layer := _layer(name)) is not None}
    embedded = bool(options.adapter and options.peft_trainable_token_indices) or any(_EMBEDDING.search(name) for name in names)
    lowest = 0 if embedded else min(found, default=layers)
    return len(found), layers - lowest - len(found)


def _adapted(options: TrainOptions, shapes: Shapes, model_type: str) -> list[str]:
    whole = value_of(options, "lora_modules_to_save")
    saved = [name for name in shapes if isinstance(whole, list) and _is_named(name.rpartition(".")[0], whole)]
    return [*targets(options, shapes, model_type), *saved]
