"""What processes of one run keep each: DDP's buckets, and the shares of DeepSpeed's ZeRO and of FSDP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.forecast.memory import Memory
from pipeline.options.views import TrainOptions

_BUCKET, _PREFETCH, _LIVE = 5 * 10**8, 5 * 10**7, 10**9
"""Defaults of DeepSpeed 0.19 in numbers, not bytes: reduce_bucket_size, stage3_prefetch_bucket_size, stage3_max_live_parameters."""


def of_one_process(memory: Memory, options: TrainOptions, hidden: int, *, gpu: bool, whole: float = 0) -> Memory:
    """``memory`` of a run of its own, as a process of this run has it. ``whole``: bytes that FSDP has together at a time."""
    if options.fsdp_config is not None:
        return _cut(memory, options.train.num_processes, whole, offloads=gpu and bool(options.fsdp_config.offload_params))
    zero = options.deepspeed.get("zero_optimization", {}) if isinstance(options.deepspeed, dict) else {}
    if zero:
        return _shared(memory, zero, options.train.num_processes, hidden, gpu)
    # Unless told otherwise, DDP's buckets are as large as all gradients together.
    return replace(memory, buffers=memory.gradients) if options.train.num_processes > 1 else memory


def _cut(memory: Memory, processes: int, whole: float, *, offloads: bool) -> Memory:
    """Weights, gradients and states are cut alike, and offloaded alike."""
    weights, gradients, states = (size / processes for size in (memory.weights, memory.gradients, memory.optimizer))
    cut = replace(memory, weights=weights, gradients=gradients, optimizer=states, buffers=min(memory.weights, whole))
    return replace(cut, weights=0, gradients=0, optimizer=0, offloaded=weights + gradients + states) if offloads else cut


def _shared(memory: Memory, zero: Mapping[str, Any], processes: int, hidden: int, gpu: bool) -> Memory:
    """Of stage 1 the states, and a copy of the weights to update, of 2 gradients too, of 3 weights too.

    Gradients pass through a bucket, in stage 3 weights through as many as may be together. On a CPU only what is used of them counts.
    """
    stage, largest = int(zero["stage"]), 4 * memory.trained
    bucket = 4 * _number(zero, "reduce_bucket_size", _BUCKET, hidden**2)
    buffers: float = (bucket if gpu else min(bucket, largest)) if stage > 1 else 0
    master, states = largest / processes, memory.optimizer / processes
    weights, gradients = memory.weights, memory.gradients
    if stage > 1:
        gradients /= processes
    if stage == 3:
        live = _number(zero, "stage3_max_live_parameters", _LIVE, _LIVE)
        buffers += min(weights, 4 * live) + min(weights, 4 * _number(zero, "stage3_prefetch_bucket_size", _PREFETCH, hidden**2))
        weights /= processes
    offloaded = 0.0
    if gpu and _is_offloaded(zero, "offload_optimizer"):
        offloaded, master, states = offloaded + master + states, 0.0, 0.0
        if stage > 1:
            offloaded, gradients = offloaded + gradients, 0.0
    if gpu and _is_offloaded(zero, "offload_param"):
        offloaded, weights = offloaded + weights, 0.0
    return replace(memory, weights=weights, optimizer=states + master, gradients=gradients, buffers=buffers, offloaded=offloaded)


def _number(zero: Mapping[str, Any], key: str, default: int, auto: int) -> int:
    value = zero.get(key, default)
    return auto if value == "auto" else int(value)  # transformers puts the square of the hidden size for it


def _is_offloaded(zero: Mapping[str, Any], key: str) -> bool:
    return bool((zero.get(key) or {}).get("device", "none") != "none")
