"""GRPO and other learning from generated answers. Read by train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.options.schema import Group, Nested, option, renamed

_VLLM = "a CUDA GPU and vllm"


class Trl(Nested):
    """Settings of TRL's trainers."""

    beta: float | None = option(
        None, "How strongly the model is held to the reference; wins over rl_beta. GRPO: default 0, which needs no reference.", ge=0
    )
    max_completion_length: int = option(512, "GRPO: longest generated answer, in tokens.", ge=1)
    use_vllm: bool = option(False, "GRPO: generate with vLLM instead of transformers.", needs=_VLLM)
    vllm_mode: Literal["server", "colocate"] = option(
        "colocate", "GRPO: vLLM on the trainer's own GPUs (colocate), or in a server that `regrow vllm-serve` starts.", needs=_VLLM
    )
    vllm_server_host: str | None = option(
        None, "GRPO: host of the vLLM server; default vllm.host, else 0.0.0.0.", needs=_VLLM, execution=True
    )
    vllm_server_port: int | None = option(
        None, "GRPO: port of the vLLM server; default vllm.port, else 8000.", needs=_VLLM, execution=True, ge=1, le=65535
    )
    vllm_server_timeout: int = option(240, "GRPO: seconds to wait for the vLLM server.", needs=_VLLM, execution=True, ge=1)
    vllm_guided_decoding_regex: str | None = option(None, "GRPO: pattern that generated answers must match.", needs=_VLLM)
    vllm_enable_sleep_mode: bool = option(
        False, "GRPO: free vLLM's memory while it is idle; only with `vllm_mode: colocate`.", needs=_VLLM, execution=True
    )
    reward_funcs: list[Annotated[str, Field(min_length=1)]] | None = option(
        None,
        "GRPO: dotted paths of functions that score answers (`function(prompts, completions, **columns)` returns a number for each), or "
        "local folders of reward models.",
    )
    reward_weights: list[float] | None = option(None, "GRPO: a weight for each of reward_funcs; default 1.")
    num_generations: int = option(8, "GRPO: answers per prompt.", ge=2)
    log_completions: bool = option(False, "GRPO: show generated answers while training.", execution=True)
    num_completions_to_print: int | None = option(None, "GRPO: how many of them; default all that were generated.", execution=True, ge=0)
    importance_sampling_level: Literal["sequence", "token"] = option(
        "token", "GRPO: ratio of probabilities of each token (token), or of whole answers (sequence: GSPO)."
    )
    sync_ref_model: bool = option(False, "GRPO: let the reference follow the model.")
    ref_model_mixup_alpha: float = option(0.9, "GRPO: share of the model in the new reference.", ge=0, le=1)
    ref_model_sync_steps: int = option(64, "GRPO: steps between two of these updates.", ge=1)
    scale_rewards: bool | Literal["group", "batch", "none"] = option(
        True, "GRPO: divide rewards by their standard deviation: within the answers to a prompt (true, group), of the batch, or not at all."
    )
    temperature: float = option(1.0, "GRPO: sampling temperature.", gt=0)
    top_p: float = option(1.0, "GRPO: sample from the likeliest tokens that have this probability together.", gt=0, le=1)
    top_k: int = option(0, "GRPO: sample from so many likeliest tokens; 0 or -1: from all.", ge=-1)
    min_p: float | None = option(None, "GRPO: leave out tokens less likely than this share of the likeliest.", ge=0, le=1)
    repetition_penalty: float = option(1.0, "GRPO: above 1, make tokens that were used less likely.", gt=0)
    num_iterations: int = option(1, "GRPO: updates per batch of answers.", ge=1)
    epsilon: float = option(0.2, "GRPO: clipping of the probability ratio.", gt=0)
    epsilon_high: float | None = option(None, "GRPO: upper clipping, where it differs (DAPO: 0.28).", gt=0)
    use_liger_kernel: bool = option(False, "GRPO: fused kernels.", needs="a CUDA GPU and liger-kernel", newer=True)
    use_liger_loss: bool | None = renamed("trl.use_liger_kernel")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = option(
        "dapo",
        "GRPO: how token losses are averaged and clipped: by answer (grpo), by batch (bnpo), by the longest answer allowed (dr_grpo), by "
        "all tokens of a step (dapo), or as the papers of these names say.",
    )
    mask_truncated_completions: bool = option(False, "GRPO: leave answers that hit the length limit out of the loss.")
    rollout_func: str | None = option(
        None,
        "GRPO: dotted path of a function of your own that generates answers: `function(prompts, trainer)` returns prompt_ids, "
        "completion_ids and logprobs.",
    )


class VllmServer(Nested):
    """Settings of vLLM: of the server that `regrow vllm-serve` starts, and as far as they apply of vLLM beside the trainer."""

    device: Literal["auto", "cuda"] = option("auto", "Device; vLLM finds it itself.", needs=_VLLM, execution=True)
    tensor_parallel_size: int = option(1, "GPUs that share each layer.", needs=_VLLM, execution=True, ge=1)
    data_parallel_size: int = option(1, "Copies of the model.", needs=_VLLM, execution=True, ge=1)
    gpu_memory_utilization: float | None = option(
        None, "Share of the GPU's memory; default 0.9 for a server, 0.3 beside the trainer.", needs=_VLLM, execution=True, gt=0, le=1
    )
    dtype: str = option("auto", "Number format of the server.", needs=_VLLM)
    max_model_len: int | None = option(None, "Longest prompt and answer together; default what the model was made for.", needs=_VLLM, ge=1)
    enable_prefix_caching: bool | None = option(None, "Keep the attention state of common beginnings.", needs=_VLLM, execution=True)
    host: str = option("0.0.0.0", "Host to listen on.", needs=_VLLM, execution=True)
    port: int = option(8000, "Port to listen on.", needs=_VLLM, execution=True, ge=1, le=65535)
    enable_reasoning: bool | None = option(None, "Separate reasoning from answers, as reasoning_parser says.", needs=_VLLM)
    reasoning_parser: str | None = option(None, "How the server recognises reasoning: a name that vLLM knows.", needs=_VLLM)


class OnlineLearning(Group):
    """Generated answers, and who scores them."""

    trl: Trl | None = option(None, "Settings of TRL's trainers.")
    vllm: VllmServer | None = option(None, "Settings of vLLM.", needs=_VLLM)
