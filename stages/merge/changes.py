"""What an adapter changes: every tensor in its file is matched with the one weight it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from pipeline.errors import RegrowError
from stages.merge.adapter_config import FILE, LoraConfig
from stages.merge.arithmetic import add_low_rank, add_to_stack
from stages.merge.checkpoint import Checkpoint

ADAPTER = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+?)(?P<inside>(\.base_layer)*)"
    r"\.(?P<part>lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
)
_SLOTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
    "token_adapter.trainable_tokens_delta": "rows",
}
_PAIRS = ({"a", "b"}, {"embedding_a", "embedding_b"})

Changes = Mapping[str, Mapping[str, str]]
"""Name of a base tensor → slot (``a``, ``b``, ``magnitude``, ``rows``, ``replacement`` …) → name of the adapter's tensor."""

Wrapped = Mapping[str, Sequence[str]]
"""Module → its parameters that are adapted as such, in the order in which peft wraps them: the first lies innermost."""


def match_tensors(names: Iterable[str], config: LoraConfig, wrapped: Wrapped = MappingProxyType({})) -> Changes:
    """Place every adapter tensor in one slot of one base tensor.

    Args:
        wrapped: of an adapter with ``target_parameters``, see :mod:`stages.merge.parameters`.

    Raises:
        RegrowError: a tensor of an unknown kind, two for one slot, or half a pair.
    """
    changes: dict[str, dict[str, str]] = {}
    for name in names:
        target, slot = _place(name, wrapped)
        other = changes.setdefault(target, {}).setdefault(slot, name)
        if other != name:
            raise RegrowError(f"{ADAPTER} holds both {other} and {name} for {target}.")
    for target, parts in changes.items():
        _check_complete(target, parts.keys() - {"replacement", "rows"}, config)
    return changes


def _place(name: str, wrapped: Wrapped) -> tuple[str, str]:
    if not name.startswith(_PREFIX):
        raise RegrowError(f"{ADAPTER} holds {name}, which does not begin with {_PREFIX}", "Save the adapter with peft's save_pretrained.")
    inner = name.removeprefix(_PREFIX)
    part = _PART.fullmatch(inner)
    if part is None:
        return inner.replace(".token_adapter.", ".").replace(".base_layer.", "."), "replacement"
    parameters = wrapped.get(part["module"], ("weight",))
    depth = part["inside"].count(".base_layer")
    if depth >= len(parameters):
        raise RegrowError(f"{ADAPTER} holds {name}, deeper than {FILE} says.")
    return f"{part['module']}.{parameters[len(parameters) - 1 - depth]}", _SLOTS[part["part"]]


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
    transposed_stacks: frozenset[str] = frozenset()

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
        if set(inner) - {"replacement"} == {"rows"} and "rows" not in outer:
            return self._same_replacement(inner, outer)  # peft ties what is trained for single tokens
        if set(inner) - {"replacement"} != {"embedding_a", "embedding_b"} or set(outer) - {"replacement"} != {"a", "b"}:
            return False
        if self.config.scale(_module(embedding)) != self.config.scale(_module(head)) or len(inner) != len(outer):
            return False
        pairs = [(self.tensors.read(inner["embedding_a"]).T, outer["b"]), (self.tensors.read(inner["embedding_b"]).T, outer["a"])]
        return self._same_replacement(inner, outer) and all(mine.equal(self.tensors.read(other)) for mine, other in pairs)

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the merged tensor, where the base has ``shape``: another only where a vocabulary was resized."""
        replacement = self.changes.get(name, {}).get("replacement")
        return shape if replacement is None else self.tensors.shapes[replacement]

    def _same_replacement(self, inner: Mapping[str, str], outer: Mapping[str, str]) -> bool:
        names = [parts["replacement"] for parts in (inner, outer) if "replacement" in parts]
        return not names or (len(names) == 2 and self.tensors.read(names[0]).equal(self.tensors.read(names[1])))

    def _merge(self, name: str, weight: Tensor, parts: dict[str, Tensor]) -> Tensor:
        if "replacement" in parts:
            weight = _replace(name, weight, parts.pop("replacement"))
        if "rows" in parts:
            weight = self._replace_rows(name, weight, parts.pop("rows"))
        if not parts:
            return weight
        if weight.dim() == 3:
            return self._merge_stack(name, weight, parts)
        transposed = "embedding_a" in parts or self.config.fan_in_fan_out
        a, b = (parts["embedding_a"], parts["embedding_b"]) if "embedding_a" in parts else (parts["a"], parts["b"])
        self._check_fit(name, weight, a, b, transposed)
        return add_low_rank(weight, a, b, self.config.scale(self._matched(name)), parts.get("magnitude"), transposed=transposed)

    def _replace_rows(self, name: str, weight: Tensor, rows: Tensor) -> Tensor:
        indices = list(self.config.tokens(_module(name)))
        if len(indices) != len(rows) or rows.shape[1:] != weight.shape[1:] or not all(0 <= index < len(weight) for index in indices):
            raise RegrowError(
                f"{ADAPTER} has {len(rows)} rows for tokens of {name}, which do not fit {len(indices)} trainable_token_indices in {FILE}."
            )
        return weight.index_copy(0, torch.tensor(indices), rows.to(weight.dtype))

    def _merge_stack(self, name: str, stack: Tensor, parts: dict[str, Tensor]) -> Tensor:
        transposed, (experts, *matrix) = name in self.transposed_stacks, stack.shape
        rank, (outer, inner) = self.config.rank(name), reversed(matrix) if transposed else matrix
        if tuple(parts["a"].shape) != (experts * rank, inner) or tuple(parts["b"].shape) != (outer, rank * experts):
            shapes = " and ".join(str(tuple(parts[slot].shape)) for slot in ("a", "b"))
            raise RegrowError(f"{ADAPTER} changes {name} by factors of {shapes}, which do not fit {tuple(stack.shape)} at rank {rank}.")
        return add_to_stack(stack, parts["a"], parts["b"], self.config.scale(name), transposed=transposed)

    def _matched(self, name: str) -> str:
        """What patterns of ranks are matched with: a parameter that is adapted as such goes by its own name."""
        return name if any(f".{name}".endswith(f".{target}") for target in self.config.target_parameters) else _module(name)

    def _check_fit(self, name: str, weight: Tensor, a: Tensor, b: Tensor, transposed: bool) -> None:
        if a.dim() != 2 or b.dim() != 2:
            raise RegrowError(f"{ADAPTER} changes {name} by factors of {tuple(a.shape)} and {tuple(b.shape)}, which are no matrices.")
        shape = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], a.shape[1])
        if tuple(weight.shape) != shape:
            raise RegrowError(
                f"{ADAPTER} changes {name} as a matrix of {shape}, but the base has {tuple(weight.shape)} "
                f"(fan_in_fan_out: {self.config.fan_in_fan_out} in {FILE})."
            )
        rank = self.config.rank(self._matched(name))
        if a.shape[0] != rank or b.shape[1] != rank:
            raise RegrowError(f"{ADAPTER} has rank {a.shape[0]} for {name}, but {FILE} says {rank}.")
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise RegrowError(
                f"The base stores {name} as {weight.dtype}, to which an update cannot be added exactly.",
                "Use a base model in full precision.",
            )


def _replace(name: str, weight: Tensor, replacement: Tensor) -> Tensor:
    if replacement.shape[1:] != weight.shape[1:]:
        raise RegrowError(f"{ADAPTER} replaces {name} by a tensor of {tuple(replacement.shape)}, but the base has {tuple(weight.shape)}.")
    return replacement.to(weight.dtype)


def _module(name: str) -> str:
    return name.removesuffix(".weight")
