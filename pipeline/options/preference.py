"""Learning from preferences: DPO, IPO, KTO, ORPO, SimPO, reward models."""

from __future__ import annotations

from typing import Literal

from pipeline.options.schema import Group, option, refused, renamed

LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
"""Losses of DPO."""

SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""Those that a share of swapped pairs has a place in."""


class Aim(Group):
    """What rows are for. Read by tokenize, where it decides what a dataset's type means and which rows are made, and by train."""

    rl: Literal["dpo", "ipo", "kto", "orpo", "simpo", "grpo", "gdpo"] | None = option(
        None,
        "Learn from preferences: dpo, ipo, simpo (and orpo, on rows of its own) from pairs of answers, kto from answers that are "
        "wanted or not; grpo and gdpo from answers that the model generates, and trl.reward_funcs score.",
        later=("ebft",),
    )
    reward_model: bool = option(False, "Train a model that gives an answer one score, from pairs of answers.")
    process_reward_model: bool = option(False, "Train a model that judges each step of an answer.")


class Preference(Group):
    """What is learned from pairs of answers, or from wanted and unwanted ones. Read by train."""

    rl_beta: float | None = option(
        None, "How strongly the model is held to the reference (ORPO: the weight of the odds ratio); default 0.1.", gt=0
    )
    dpo_beta: float | None = renamed("rl_beta")
    dpo_loss_type: str | list[str] | None = option(
        None, f"DPO: the loss, or several that are added: {', '.join(LOSSES)}; default sigmoid.", newer=True
    )
    dpo_loss_weights: list[float] | None = option(None, "DPO: one weight for each of several losses; default 1.", newer=True)
    precompute_ref_log_probs: bool | None = option(
        None,
        "DPO: ask the reference once, before the first step, so that no copy of the model is held while it is trained.",
        newer=True,
    )
    dpo_use_weighting: bool | None = option(
        None, "DPO: weight each pair by how likely the model itself is to write it (WPO, arXiv 2406.11827)."
    )
    dpo_label_smoothing: float | None = option(
        None, f"DPO: share of pairs that are thought to be swapped, for the losses {', '.join(SMOOTHED)}.", ge=0, lt=0.5
    )
    dpo_padding_free: bool | None = refused(
        "DPO: join rows instead of padding them.",
        "TRL has switched it off since its DPO trainer was rewritten, and pads all the same",
        "set group_by_length: true, which leaves less to pad",
    )
    dpo_use_liger_kernel: bool | None = option(
        None, "DPO: Liger's kernels in the layers of the model.", needs="a CUDA GPU and liger-kernel"
    )
    dpo_norm_loss: bool | None = renamed("dpo_loss_type: sigmoid_norm", "Old switch for the loss divided by the length.")
    rpo_alpha: float | None = renamed("dpo_loss_type and dpo_loss_weights", "Old weight of the likelihood of the better answer (RPO).")
    dpo_use_logits_to_keep: bool | None = refused("Compute only the logits that are needed.", "TRL removed the switch and always does")
    dpo_generate_during_eval: bool | None = refused("Generate answers while evaluating.", "TRL removed it", "set eval.samples")
    orpo_alpha: float | None = option(None, "ORPO: weight of the odds ratio; the same as rl_beta.", gt=0)
    simpo_gamma: float | None = option(None, "SimPO: margin by which the better answer is to win; default 0.5.", ge=0)
    cpo_alpha: float | None = option(
        None, "SimPO: weight of the likelihood of the better answer; default 1 (CPO-SimPO), 0 for plain SimPO.", ge=0
    )
    kto_desirable_weight: float | None = option(None, "KTO: weight of wanted answers; default 1.", ge=0)
    kto_undesirable_weight: float | None = option(None, "KTO: weight of unwanted answers; default 1.", ge=0)


class RewardModel(Group):
    """Models that judge answers. Read by train."""

    center_rewards_coefficient: float | None = option(
        None, "Reward models: pull the mean score to zero; 0.01 is usual (arXiv 2312.09244).", ge=0
    )
    num_labels: int | None = option(
        None, "Outputs of the head that judges: 1 of a reward model, 2 of one that judges steps. Nothing else works.", ge=1
    )
