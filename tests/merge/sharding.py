"""Writes sharded checkpoints as training on several processes does. Run as a program: it starts those processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

PROCESSES = 2


def save_with_fsdp(rank: int, folder: str) -> None:
    """Load ``folder/trained`` in each process, shard it as FSDP 2 does, and save it as accelerate does; and without its prefix."""
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    root = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{root / 'meeting'}", rank=rank, world_size=PROCESSES)
    mesh = dist.device_mesh.init_device_mesh("cpu", (PROCESSES,))
    model: Any = LlamaForCausalLM(LlamaConfig.from_pretrained(root / "trained"))  # the quick way: from_pretrained imports far more
    model.load_state_dict(load_file(root / "trained" / "model.safetensors"), strict=False)
    model.tie_weights()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    weights: dict[str, Any] = get_model_state_dict(model)
    save({"model": weights}, checkpoint_id=root / "accelerate" / "pytorch_model_fsdp_0")
    weights, state = get_state_dict(model, optimizer)
    save({**weights, "optim": state}, checkpoint_id=root / "plain")
    dist.destroy_process_group()


Params = Mapping[str, Tensor]


def save_zero(
    folder: Path,
    stage: int,
    groups: Sequence[Params],
    processes: int,
    frozen: Params | None = None,
    shared: Mapping[str, str] | None = None,
) -> None:
    """A checkpoint of ZeRO ``stage`` with the weights of ``groups``, in the layout that DeepSpeed 0.19 documents in zero_to_fp32.py."""
    step = folder / "global_step7"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step7")
    frozen = frozen or {}
    shapes = [{name: tensor.shape for name, tensor in group.items()} for group in groups]
    for rank in range(processes):
        model: dict[str, Any] = {"buffer_names": [], "param_shapes": shapes, "shared_params": dict(shared or {}), "ds_version": "0.19.8"}
        model |= {"frozen_param_shapes": {name: tensor.shape for name, tensor in frozen.items()}, "module": {}}
        if stage < 3:  # in the dtype that the model computes in
            model["module"] = {name: tensor.bfloat16() for group in groups for name, tensor in group.items()} | dict(frozen)
        state: dict[str, Any] = {"zero_stage": stage, "partition_count": processes if stage == 3 else [processes] * len(groups)}
        if stage == 3:
            model["frozen_param_fragments"] = {name: _piece(tensor, rank, processes) for name, tensor in frozen.items()}
            flat = [torch.cat([_piece(tensor, rank, processes) for tensor in group.values()]) for group in groups]
            state["fp32_flat_groups"] = flat
        else:
            model |= {"frozen_param_fragments": dict(frozen)} if stage == 2 else {"frozen_param_shapes": None}
            state["single_partition_of_fp32_groups"] = [_part(group, rank, processes) for group in groups]
        prefix = f"zero_pp_rank_{rank}_mp_rank_00"
        if stage == 3 or rank == 0:
            torch.save(model, step / f"{prefix if stage == 3 else 'mp_rank_00'}_model_states.pt")
        torch.save({"optimizer_state_dict": state, "ds_version": "0.19.8"}, step / f"{prefix}_optim_states.pt")


def _piece(tensor: Tensor, rank: int, processes: int) -> Tensor:
    """Stage 3: this process's piece of one parameter, filled up with zeros."""
    size = -(-tensor.numel() // processes)
    return nn.functional.pad(tensor.flatten().float(), (0, size * processes - tensor.numel()))[rank * size : (rank + 1) * size].clone()


def _part(group: Params, rank: int, processes: int) -> Tensor:
    """Stages 1 and 2: this process's part of a group laid end to end, filled up to a multiple of twice the processes."""
    flat = torch.cat([tensor.flatten().float() for tensor in group.values()])
    flat = nn.functional.pad(flat, (0, -len(flat) % (2 * processes)))
    return flat.chunk(processes)[rank].clone()


if __name__ == "__main__":
    spawn(save_with_fsdp, args=(sys.argv[1],), nprocs=PROCESSES)  # type: ignore[no-untyped-call]
