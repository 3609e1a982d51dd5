"""What an adapter changes: every tensor in its file is matched with the one weight it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from stages.merge.adapter_config import FILE, LoraConfig
from stages.merge.arithmetic import add_low_rank
from stages.merge.checkpoint import Checkpoint

ADAPTER = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PART = re.compile(r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)")
_SLOTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
}
_PAIRS = ({"a", "b"}, {"embedding_a", "embedding_b"})

Changes = Mapping[str, Mapping[str, str]]
"""Name of a base tensor → slot (``a``, ``b``, ``magnitude``, ``replacement`` …) → name of the adapter's tensor."""


def match_tensors(names: Iterable[str], config: LoraConfig) -> Changes:
    """Place every adapter tensor in one slot of one base tensor.

    Raises:
        RegrowError: a tensor of an unknown kind, two for one slot, or half a pair.
    """
    changes: dict[str, dict[str, str]] = {}
    for name in names:
        target, slot = _place(name)
        other = changes.setdefault(target, {}).setdefault(slot, name)
        if other != name:
            raise RegrowError(f"{ADAPTER} holds both {other} and {name} for {target}.")
    for target, parts in changes.items():
        _check_complete(target, parts.keys() - {"replacement"}, config)
    return changes


def _place(name: str) -> tuple[str, str]:
    if not name.startswith(_PREFIX):
        raise RegrowError(f"{ADAPTER} holds {name}, which does not begin with {_PREFIX}", "Save the adapter with peft's save_pretrained.")
    inner = name.removeprefix(_PREFIX)
    part = _PART.fullmatch(inner)
    if part:
        return f"{part['module']}.weight", _SLOTS[part["part"]]
    return inner.replace(".base_layer.", "."), "replacement"


def _check_complete(target: str, slots: set[str], config: LoraConfig) -> None:
    expected = [pair | {"magnitude"} if config.use_dora else pair for pair in _PAIRS]
    if slots and slots not in expected:
        wanted = "A, B and a magnitude vector" if config.use_dora else "A and B"
        raise RegrowError(f"{ADAPTER} has {', '.join(sorted(slots))} for {target}; use_dora: {config.use_dora} needs {wanted}.")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: configuration, tensors, and what each is for."""

    config: LoraConfig
    tensors: Checkpoint
    changes: Changes

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """The merged tensor, of ``weight``'s shape and dtype; ``weight`` itself where the adapter changes nothing.

        Raises:
            RegrowError: a shape or dtype that does not fit, or a result that is not finite.
        """
        if name not in self.changes:
            return weight
        merged = self._merge(name, weight, {slot: self.tensors.read(key) for slot, key in self.changes[name].items()})
        if not merged.sum(dtype=torch.float32).isfinite():  # thirty times as fast as asking every element
            remedy = "The training diverged: train again with a lower learning_rate."
            raise RegrowError(f"{ADAPTER} makes {name} infinite or not a number.", remedy)
        return merged

    def same_update(self, embedding: str, head: str) -> bool:
        """Whether head and embedding share one adapter, as peft's ``ensure_weight_tying`` saves it: twice, transposed."""
        inner, outer = self.changes.get(embedding, {}), self.changes.get(head, {})
        if set(inner) - {"replacement"} != {"embedding_a", "embedding_b"} or set(outer) - {"replacement"} != {"a", "b"}:
            return False
        if self.config.scale(_module(embedding)) != self.config.scale(_module(head)) or len(inner) != len(outer):
            return False
        pairs = [(self.tensors.read(inner["embedding_a"]).T, outer["b"]), (self.tensors.read(inner["embedding_b"]).T, outer["a"])]
        if "replacement" in inner:
            pairs.append((self.tensors.read(inner["replacement"]), outer["replacement"]))
        return all(mine.equal(self.tensors.read(other)) for mine, other in pairs)

    def _merge(self, name: str, weight: Tensor, parts: dict[str, Tensor]) -> Tensor:
        if "replacement" in parts:
            weight = _replace(name, weight, parts.pop("replacement"))
        if not parts:
            return weight
        transposed = "embedding_a" in parts or self.config.fan_in_fan_out
        a, b = (parts["embedding_a"], parts["embedding_b"]) if "embedding_a" in parts else (parts["a"], parts["b"])
        self._check_fit(name, weight, a, b, transposed)
        return add_low_rank(weight, a, b, self.config.scale(_module(name)), parts.get("magnitude"), transposed=transposed)

    def _check_fit(self, name: str, weight: Tensor, a: Tensor, b: Tensor, transposed: bool) -> None:
        shape = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], a.shape[1])
        if tuple(weight.shape) != shape:
            raise RegrowError(
                f"{ADAPTER} changes {name} as a matrix of {shape}, but the base has {tuple(weight.shape)} "
                f"(fan_in_fan_out: {self.config.fan_in_fan_out} in {FILE})."
            )
        rank = self.config.rank(_module(name))
        if a.shape[0] != rank or b.shape[1] != rank:
            raise RegrowError(f"{ADAPTER} has rank {a.shape[0]} for {name}, but {FILE} says {rank}.")
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise RegrowError(
                f"The base stores {name} as {weight.dtype}, to which an update cannot be added exactly.",
                "Use a base model in full precision.",
            )


def _replace(name: str, weight: Tensor, replacement: Tensor) -> Tensor:
    if replacement.shape != weight.shape:
        raise RegrowError(
            f"{ADAPTER} replaces {name} by a tensor of {tuple(replacement.shape)}, but the base has {tuple(weight.shape)}.",
            "merge keeps the shapes of the base: a resized vocabulary cannot be merged.",
        )
    return replacement.to(weight.dtype)


def _module(name: str) -> str:
    return name.removesuffix(".weight")
