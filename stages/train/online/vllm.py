"""vLLM, as far as the trainer goes: settings of TRL's class of arguments."""

from __future__ import annotations

from typing import Any

from pipeline.generation import trl_of
from pipeline.options.online import VllmServer
from pipeline.options.views import TrainOptions


def vllm_settings(options: TrainOptions) -> dict[str, Any]:
    """Settings of TRL's GRPO for generating with vLLM; none where transformers generates."""
    trl, server = trl_of(options), options.vllm or VllmServer()
    if not trl.use_vllm:
        return {}
    settings = {
        "use_vllm": True,
        "vllm_mode": trl.vllm_mode,
        "vllm_structured_outputs_regex": trl.vllm_guided_decoding_regex,
        # VESPO weighs whole answers itself, and TRL takes no other correction beside it.
        "vllm_importance_sampling_mode": "token_truncate" if trl.loss_type == "vespo" else "sequence_mask",
    }
    if trl.vllm_mode == "server":
        host, port = trl.vllm_server_host or server.host, trl.vllm_server_port or server.port
        return settings | {"vllm_server_host": host, "vllm_server_port": port, "vllm_server_timeout": float(trl.vllm_server_timeout)}
    return settings | {
        "vllm_enable_sleep_mode": trl.vllm_enable_sleep_mode,
        "vllm_gpu_memory_utilization": server.gpu_memory_utilization or 0.3,
        "vllm_tensor_parallel_size": server.tensor_parallel_size,
        "vllm_max_model_length": server.max_model_len,
    }
