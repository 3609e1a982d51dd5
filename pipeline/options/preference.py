"""Learning from preferences: DPO, IPO, KTO, ORPO, SimPO, reward models."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, not_yet, refused, renamed


class Aim(Group):
    """What rows are for. Read by tokenize: it decides what a dataset's type means and which rows are made."""

    rl: Literal["dpo", "ipo", "kto", "orpo", "simpo", "grpo", "gdpo", "ebft"] | None = not_yet(
        "Kind of preference training.", prepared=True
    )
    reward_model: bool = not_yet("Train a model that gives an answer one score.", False, prepared=True)
    process_reward_model: bool = not_yet("Train a model that judges each step of an answer.", False, prepared=True)


class Preference(Group):
    """What is learned from pairs of answers, or from wanted and unwanted ones. Read by train."""

    rl_beta: float | None = not_yet("How strongly the model is held to the reference.", idle=(), ge=0)
    dpo_beta: float | None = renamed("rl_beta")
    dpo_loss_type: str | list[str] | None = not_yet("DPO: loss, or several that are added.", idle=("sigmoid",), newer=True)
    dpo_loss_weights: list[float] | None = not_yet("DPO: their weights.", idle=([],), newer=True)
    precompute_ref_log_probs: bool | None = not_yet("DPO: compute the reference's probabilities once, before training.", newer=True)
    dpo_use_weighting: bool | None = not_yet("DPO: weight pairs by the model's own probability (WPO).")
    dpo_label_smoothing: float | None = not_yet("DPO: share of pairs that are thought to be swapped.", idle=(0,), ge=0, lt=0.5)
    dpo_padding_free: bool | None = not_yet("DPO: join rows instead of padding them.", needs="a CUDA GPU and flash-attn")
    dpo_use_liger_kernel: bool | None = not_yet("DPO: fused loss.", needs="a CUDA GPU and liger-kernel")
    dpo_norm_loss: bool | None = renamed("dpo_loss_type: sigmoid_norm", "Old switch for the loss divided by the length.")
    rpo_alpha: float | None = renamed("dpo_loss_type and dpo_loss_weights", "Old weight of the likelihood of the better answer (RPO).")
    dpo_use_logits_to_keep: bool | None = refused("Compute only the logits that are needed.", "TRL removed the switch and always does")
    dpo_generate_during_eval: bool | None = refused("Generate answers while evaluating.", "TRL removed it", "set eval.samples")
    orpo_alpha: float | None = not_yet("ORPO: weight of the odds ratio.", idle=(), ge=0)
    simpo_gamma: float | None = not_yet("SimPO: margin.", idle=(), ge=0)
    cpo_alpha: float | None = not_yet("SimPO, CPO: weight of the likelihood of the better answer.", idle=(), ge=0)
    kto_desirable_weight: float | None = not_yet("KTO: weight of wanted answers; default 1.", idle=(1,), ge=0)
    kto_undesirable_weight: float | None = not_yet("KTO: weight of unwanted answers; default 1.", idle=(1,), ge=0)


class RewardModel(Group):
    """Models that judge answers. Read by train."""

    center_rewards_coefficient: float | None = not_yet("Pull the mean score to zero; 0.01 is usual (arXiv 2312.09244).", idle=(0,), ge=0)
    num_labels: int | None = not_yet("Outputs of the classification head; 1 or 2, as the kind of model needs.", idle=(), ge=1)
