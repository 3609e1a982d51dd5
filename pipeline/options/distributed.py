"""Several GPUs and machines. Read by train."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import LARGEST, Group, Nested, not_yet, option, refused, renamed

StateDict = Literal["FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"]
_GPUS = "several CUDA GPUs"
_LAUNCHER = "the launcher sets it"


class TrainGroup(Nested):
    """Options of the train stage that Axolotl has no key for."""

    num_processes: int = option(
        1,
        "Processes that train together, each with micro_batch_size rows at a time on a GPU of its own, or on CPUs. "
        "(Axolotl: the launcher's --num-processes.)",
        ge=1,
        le=1024,
    )
    num_machines: int = option(
        1,
        "Machines that these processes are on, as many on each: one runs the stage, `regrow join` is run on the others, in a folder "
        "that all see. (Axolotl: the launcher's --num-machines.)",
        execution=True,
        ge=1,
        le=1024,
    )
    main_process_port: int | None = option(
        None,
        "Port on which the leading machine waits for the others; the next one is torch.distributed's. Default: any that are free.",
        execution=True,
        ge=1024,
        le=65534,
    )


class DataParallel(Group):
    """torch DistributedDataParallel."""

    world_size: int | None = refused("Number of processes.", _LAUNCHER, "write train: {num_processes: …}", idle=(1,))
    local_rank: int | None = refused("Number of this process on its machine.", _LAUNCHER, "write train: {num_processes: …}", idle=(0,))
    train: TrainGroup = option(TrainGroup(), "Options of the train stage.")
    ddp: bool | None = option(
        None, "In Axolotl: whole copies of the model on several devices. Here train.num_processes says so and how many.", execution=True
    )
    ddp_timeout: int = option(1800, "Seconds until processes that wait for each other give up.", execution=True, ge=1, le=LARGEST)
    ddp_bucket_cap_mb: int | None = option(None, "Size of gradient buckets, in MiB; default 25.", ge=1, le=LARGEST)
    ddp_broadcast_buffers: bool | None = option(None, "Send buffers from the first process before each forward pass.")
    ddp_find_unused_parameters: bool = option(
        False, "Look for parameters that had no part in the loss; without it, one that had none stops the run."
    )


class DeepSpeed(Group):
    """DeepSpeed ZeRO."""

    deepspeed: str | dict[str, Any] | None = option(
        None,
        "Settings of DeepSpeed's ZeRO, or the JSON file that holds them: weights, gradients or optimizer states shared out over processes.",
        extras=(("*", "deepspeed", "deepspeed"),),
    )
    deepcompile: bool | None = not_yet("DeepSpeed's compiler.", needs=f"{_GPUS} and deepspeed")


class Fsdp(Nested):
    """Settings of FSDP 2, torch's fully_shard. A prefix fsdp_ is taken off."""

    activation_checkpointing: bool | None = renamed("gradient_checkpointing")
    offload_params: bool | None = option(None, "Keep shards, gradients and optimizer states in RAM; a layer is copied to compute.")
    sync_module_states: bool | None = option(
        None, "In Axolotl: send the weights of the first process to all. Here all read the same files, and begin the same.", execution=True
    )
    cpu_ram_efficient_loading: bool | None = option(
        None, "In Axolotl: read the weights in one process only. Here each process reads them and keeps its shards.", execution=True
    )
    cpu_offload_pin_memory: bool | None = option(None, "Page-locked memory for offloaded shards; default true.", execution=True)
    use_orig_params: bool | None = option(None, "Keep the parameters as they are, which FSDP 2 always does: true.", execution=True)
    state_dict_type: StateDict | None = option(
        None, "Form of the model in checkpoints: FULL_STATE_DICT. Shards to resume from stand beside it.", execution=True
    )
    final_state_dict_type: StateDict | None = option(None, "Form of data/trained: FULL_STATE_DICT, a plain model.", execution=True)
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP"] | None = option(
        None, "What is gathered at once: TRANSFORMER_BASED_WRAP, a layer.", execution=True
    )
    transformer_layer_cls_to_wrap: str | None = option(
        None, "Class of the layers that are gathered at once, or several with commas. Default: what the model says its layers are."
    )
    reshard_after_forward: bool | None = option(
        None, "Give a layer's weights up between its forward and its backward pass; default true. False: more memory, less to send."
    )
    mixed_precision_policy: str | None = option(
        None, "bf16 or fp32, as bf16 of this file says, which decides: products under autocast, weights and sums in fp32.", execution=True
    )


class ShardedDataParallel(Group):
    """FSDP 2."""

    fsdp: list[str] | None = refused(
        "Old switch of FSDP 1.", "fsdp_config says that and how", "write fsdp_config and fsdp_version: 2, and remove it", idle=([],)
    )
    fsdp_config: Fsdp | None = option(
        None, "Weights, gradients and optimizer states shared out over train.num_processes by torch's FSDP 2; {} takes every default."
    )
    fsdp_version: Literal[1, 2] | None = option(None, "FSDP 2, which has to be written.")
    fsdp_final_state_dict_type: StateDict | None = renamed("fsdp_config.final_state_dict_type")


class Mesh(Group):
    """Devices in several dimensions; their product is the number of processes."""

    dp_shard_size: int | None = not_yet("Processes among which weights are sharded.", needs=_GPUS, idle=(1,), ge=1)
    dp_replicate_size: int | None = not_yet("Copies of these.", needs=_GPUS, idle=(1,), ge=1)
    tensor_parallel_size: int | None = not_yet("Processes that share each layer.", needs=_GPUS, idle=(1,), ge=1)
    context_parallel_size: int | None = not_yet(
        "Processes that share each sequence.", needs=f"{_GPUS} and ring-flash-attn", idle=(1,), ge=1
    )
    sequence_parallel_degree: int | None = renamed("context_parallel_size")
    heads_k_stride: int | None = not_yet("Key heads that are exchanged at a time; default 1.", idle=(1,), ge=1)
    ring_attn_func: Literal["varlen_llama3", "batch_ring", "batch_zigzag", "batch_stripe"] | None = not_yet(
        "Form of ring attention.", idle=()
    )
