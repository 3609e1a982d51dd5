"""What is said of the memory that a training takes: of which process, on which device, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifact import open_artifact
from pipeline.forecast.activations import Batch, waiting_place
from pipeline.forecast.memory import PROGRAM, Memory, estimate
from pipeline.forecast.sharing import of_one_process
from pipeline.forecast.sizes import layer_sizes
from pipeline.forecast.tensors import count, in_layers, read_shapes
from pipeline.forecast.work import Work
from pipeline.options.views import TrainOptions
from pipeline.steps import accumulation_steps


def memory_lines(data: Path, options: TrainOptions, work: Work) -> Iterator[str]:
    """Of the model in ``data/base``."""
    config = json.loads((data / "base" / "config.json").read_text(encoding="utf-8"))
    shapes, gpu = read_shapes(data / "base"), _has_gpu()
    try:
        batch, half = largest_batch(data, options, work), _computes_in_half(options, gpu)
        alone = estimate(options, config, shapes, batch, half=half, gpu=gpu, steps=work.steps.steps)
        sizes = layer_sizes(config)
        # Of FSDP's units the root, which holds all that is in no layer, and a layer with the next one.
        whole = 4 * (count(shapes) - in_layers(shapes) + 2 * in_layers(shapes) / sizes.layers)
        memory = of_one_process(alone, options, sizes.hidden, gpu=gpu, whole=whole)
    except KeyError:
        yield f"    memory: no estimate for models of type {config.get('model_type')!r}"
        return
    at_a_time = " at a time" if options.lisa_n_layers is not None else ""
    yield f"    {memory.trained:,} of {memory.parameters:,} parameters are trained{at_a_time}"
    yield from _memory(memory, options, "of GPU memory" if gpu else "of RAM")
    yield from _together(memory, options, gpu, 4 * count(shapes))


def _memory(memory: Memory, options: TrainOptions, device: str) -> Iterator[str]:
    by = "each process" if options.train.num_processes > 1 else "the process"
    total = memory.total + PROGRAM
    yield f"    memory, an estimate: {_size(total)} {device} in use by {by}, and up to a fifth more in an allocator's gaps"
    yield f"        {' + '.join(_parts(memory))}"
    if memory.activations.elsewhere:
        yield f"        besides, {_size(memory.activations.elsewhere)} of activations wait {waiting_place(options)}"
    if memory.offloaded:
        yield f"        besides, {_size(memory.offloaded)} that {'FSDP' if options.fsdp_config is not None else 'DeepSpeed'} keeps in RAM"


def _parts(memory: Memory) -> Iterator[str]:
    yield f"weights {_size(memory.weights)}"
    if memory.reference:
        yield f"reference model {_size(memory.reference)}"
    yield f"optimizer {_size(memory.optimizer)}"
    if memory.buffers:
        yield f"buffers between processes {_size(memory.buffers)}"
    forward = [f"activations {_size(memory.activations.waiting)}", f"logits {_size(memory.logits)}"]
    if memory.copies:
        forward.append(f"weights in half {_size(memory.copies)}")
    if memory.together:
        yield from (f"gradients {_size(memory.gradients)}", *forward)
    else:
        forward.append(f"the first gradient {_size(memory.first_gradient)}")
        end = f"gradients {_size(memory.gradients)} + activations of a layer {_size(memory.activations.layer)}"
        yield f"the larger of ({end}) and ({' + '.join(forward)})"
    yield f"the program {_size(PROGRAM)}"


def _together(memory: Memory, options: TrainOptions, gpu: bool, read: int) -> Iterator[str]:
    """Of the processes that share a machine's RAM."""
    here = options.train.num_processes // options.train.num_machines
    if here > 1 and not gpu:
        yield f"        {_size(here * (memory.total + PROGRAM))} of RAM for the {here} processes of {_machine(options)}"
    if options.deepspeed or options.fsdp_config is not None:
        processes = f"each of {here} processes reads" if here > 1 else "the process reads"
        yield f"        before it is shared out {processes} the whole model into RAM: {_size(here * read)} on {_machine(options)}"


def _machine(options: TrainOptions) -> str:
    return "each machine" if options.train.num_machines > 1 else "this machine"


def largest_batch(data: Path, options: TrainOptions, work: Work) -> Batch:
    """The largest there can be, of bins of the longest and of those with the most labels."""
    length = work.longest
    if options.pad_to_sequence_len:
        length = max(length, int(open_artifact(data / "packed", verify=False).content["sequence_len"]))
    multiple = options.pad_to_multiple_of or 1
    length = -(-length // multiple) * multiple
    paired = options.reward_model or options.rl in ("dpo", "ipo", "orpo", "simpo")
    rows = options.micro_batch_size * (2 if paired else 1)
    return Batch(rows, length, rows * work.most_trained, accumulation_steps(options, options.train.num_processes), work.packed)


def _has_gpu() -> bool:
    """Asked without importing torch."""
    return Path("/proc/driver/nvidia/version").exists()


def _computes_in_half(options: TrainOptions, gpu: bool) -> bool:
    """`bf16: auto` takes bfloat16 on a GPU."""
    if options.float32:
        return False
    return options.fp16 or options.fp8 or (gpu if options.bf16 == "auto" else bool(options.bf16))


def _size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
