"""Names that newer versions of Axolotl and its plugins know, and the config reference that regrow follows does not."""

from __future__ import annotations

from fnmatch import fnmatch

NAMES = (
    *("sage_attention", "large_head_attention", "sdpa_varlen", "fused_attn_kernel", "experts_implementation", "quantize_moe_experts"),
    *("layer_offloading", "selective_checkpointing", "lora_embedding_kernel", "qgalore_*", "use_onebitllms", "merge_method"),
    *(
        "generate_samples",
        "generate_max_new_tokens",
        "generate_temperature",
        "num_generation_samples",
        "min_num_params",
        "processor_kwargs",
    ),
    *("role_boundaries", "liger_*", "cut_cross_entropy", "kd_*", "spectrum_*", "grokfast_*", "llmcompressor", "lm_eval_*", "diffusion"),
    *("expert_parallel*", "densemixer", "mora_*", "use_swanlab", "swanlab_*", "gdpo_*", "ebft*", "nemo_gym*"),
    *("hatchery*", "tinker*", "rl_adapter_ref_model", "gptq_disable_exllama"),
    *("nvfp4*", "mxfp4*", "muon_*"),
)
"""Names, and beginnings of names that end in ``*``."""


def is_newer(key: str) -> bool:
    """Whether ``key`` is one of these."""
    return any(fnmatch(key, pattern) for pattern in NAMES)
