"""Random weights of a config: a base model to train from nothing."""

from __future__ import annotations

from pathlib import Path

_SEED = 42


def write_random_weights(folder: Path, largest_shard: str = "4GB") -> None:
    """Weights for the config.json in ``folder``, as the architecture initialises them, in fp32; the same ones each time.

    They do not follow `seed`, which training alone reads: the base model is one artifact for all its runs.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from pipeline.models import quiet_libraries

    quiet_libraries()
    kept = {name: (folder / name).read_bytes() for name in ("config.json", "generation_config.json") if (folder / name).exists()}
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder, max_shard_size=largest_shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for name, data in kept.items():
        (folder / name).write_bytes(data)
