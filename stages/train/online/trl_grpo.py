"""What regrow takes from TRL's GRPO, in one place: a move there is noticed here."""

from __future__ import annotations

from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import add_fused_lm_head

__all__ = ["GRPOConfig", "GRPOTrainer", "SyncRefModelCallback", "add_fused_lm_head"]
