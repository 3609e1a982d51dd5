"""LoRA and its kin: what an adapter changes, how it begins, how ReLoRA renews it."""
