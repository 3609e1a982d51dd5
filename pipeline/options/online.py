"""GRPO and other learning from generated answers. Read by train."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, Nested, not_yet, renamed

_VLLM = "a CUDA GPU and vllm"


class Trl(Nested):
    """Settings of TRL's trainers."""

    beta: float | None = not_yet("How strongly the model is held to the reference; wins over rl_beta.", idle=(), ge=0)
    max_completion_length: int | None = not_yet("Longest generated answer, in tokens.", idle=(), ge=1)
    use_vllm: bool = not_yet("Generate with vLLM.", False, needs=_VLLM)
    vllm_mode: Literal["server", "colocate"] | None = not_yet("vLLM in a server of its own, or beside the trainer.", needs=_VLLM, idle=())
    vllm_server_host: str | None = not_yet("Host of the server.", "0.0.0.0", needs=_VLLM, execution=True, idle=())
    vllm_server_port: int | None = not_yet("Port of the server.", 8000, needs=_VLLM, execution=True, idle=(), ge=1, le=65535)
    vllm_server_timeout: int | None = not_yet("Seconds to wait for the server.", needs=_VLLM, execution=True, idle=(), ge=1)
    vllm_guided_decoding_regex: str | None = not_yet("Pattern that generated answers must match.", needs=_VLLM)
    vllm_enable_sleep_mode: bool | None = not_yet("Free vLLM's memory while it is idle.", needs=_VLLM, execution=True)
    reward_funcs: list[str] | None = not_yet("Dotted paths of functions that score answers, or reward models.", idle=([],))
    reward_weights: list[float] | None = not_yet("Their weights.", idle=([],))
    num_generations: int | None = not_yet("Answers per prompt.", idle=(), ge=2)
    log_completions: bool | None = not_yet("Log generated answers.", False, execution=True)
    num_completions_to_print: int | None = not_yet("How many of them.", execution=True, idle=(), ge=0)
    importance_sampling_level: Literal["sequence", "token"] | None = not_yet("token: GRPO; sequence: GSPO.", idle=("token",))
    sync_ref_model: bool | None = not_yet("Let the reference follow the model.", False)
    ref_model_mixup_alpha: float | None = not_yet("Share of the model in the new reference.", 0.9, idle=(), ge=0, le=1)
    ref_model_sync_steps: int | None = not_yet("Steps between two of these updates.", 64, idle=(), ge=1)
    scale_rewards: bool | Literal["group", "batch", "none"] = not_yet("Divide rewards by their standard deviation.", True, idle=())
    temperature: float | None = not_yet("Sampling temperature.", idle=(1,), gt=0)
    top_p: float | None = not_yet("Sample from the likeliest tokens that have this probability together.", idle=(1,), gt=0, le=1)
    top_k: int | None = not_yet("Sample from so many likeliest tokens.", idle=(0, -1), ge=-1)
    min_p: float | None = not_yet("Leave out tokens less likely than this share of the likeliest.", idle=(0,), ge=0, le=1)
    repetition_penalty: float | None = not_yet("Make tokens that were used less likely.", idle=(1,), gt=0)
    num_iterations: int | None = not_yet("Updates per batch of answers.", idle=(1,), ge=1)
    epsilon: float | None = not_yet("Clipping of the probability ratio.", idle=(), gt=0)
    epsilon_high: float | None = not_yet("Upper clipping, when it differs (DAPO).", idle=(), gt=0)
    use_liger_kernel: bool | None = not_yet("Fused loss.", needs="a CUDA GPU and liger-kernel", newer=True)
    use_liger_loss: bool | None = renamed("trl.use_liger_kernel")
    loss_type: str | None = not_yet("How token losses are averaged: grpo, bnpo, dr_grpo and others.", idle=())
    mask_truncated_completions: bool = not_yet("Leave answers that hit the length limit out of the loss.", False)
    rollout_func: str | None = not_yet("Dotted path of a function of your own that generates answers.")


class VllmServer(Nested):
    """Settings of a vLLM server."""

    device: str | None = not_yet("Device.", "auto", idle=())
    tensor_parallel_size: int | None = not_yet("GPUs that share each layer.", idle=(1,), ge=1)
    data_parallel_size: int | None = not_yet("Copies of the model.", idle=(1,), ge=1)
    gpu_memory_utilization: float | None = not_yet("Share of the GPU's memory.", 0.9, idle=(), gt=0, le=1)
    dtype: str | None = not_yet("Number format.", "auto", idle=())
    max_model_len: int | None = not_yet("Longest context.", idle=(), ge=1)
    enable_prefix_caching: bool | None = not_yet("Keep the attention state of common beginnings.", idle=())
    host: str | None = not_yet("Host to listen on.", "0.0.0.0", idle=())
    port: int | None = not_yet("Port to listen on.", 8000, idle=(), ge=1, le=65535)
    enable_reasoning: bool | None = not_yet("Separate reasoning from answers.")
    reasoning_parser: str | None = not_yet("How reasoning is recognised.")


class OnlineLearning(Group):
    """Generated answers, and who scores them."""

    trl: Trl | None = not_yet("Settings of TRL's trainers.", idle=({},))
    vllm: VllmServer | None = not_yet("Settings of the vLLM server.", needs=_VLLM, execution=True, idle=({},))
