"""Options of preference training to what TRL's classes of arguments take."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.views import TrainOptions
from stages.train.preference.trainers import DPO, KTO, ORPO, Reward, SimPO
from stages.train.preference.trl_trainers import CPOConfig, DPOConfig, KTOConfig, ORPOConfig, RewardConfig


class Method(NamedTuple):
    """A trainer, the class of its arguments, and what these are besides what every training has."""

    trainer: type[Any]
    arguments: type[Any]
    settings: dict[str, Any]


def method_of(options: TrainOptions) -> Method:
    """How preferences are learned. Rows come as long as they are to be, and dropout is :func:`without_dropout`'s business.

    Raises:
        RegrowError: something that this machine cannot do.
    """
    common: dict[str, Any] = {"disable_dropout": False, "max_length": None}
    if options.reward_model:
        return Method(Reward, RewardConfig, common | _given(center_rewards_coefficient=options.center_rewards_coefficient))
    common |= _given(beta=beta_of(options))
    if options.rl == "kto":
        weights = _given(desirable_weight=options.kto_desirable_weight, undesirable_weight=options.kto_undesirable_weight)
        return Method(KTO, KTOConfig, common | weights)
    if options.rl in ("orpo", "simpo"):
        common["max_length"] = torch.iinfo(torch.int32).max  # nothing is cut; None would mean 512
    if options.rl == "orpo":
        return Method(ORPO, ORPOConfig, common)
    if options.rl == "simpo":
        extra = _given(simpo_gamma=options.simpo_gamma, cpo_alpha=options.cpo_alpha)
        return Method(SimPO, CPOConfig, common | {"loss_type": "simpo"} | extra)
    return Method(DPO, DPOConfig, common | _dpo(options))


def beta_of(options: TrainOptions) -> float | None:
    """How strongly the reference holds the model; ORPO's weight of the odds ratio is the same number. None: TRL's default."""
    named = [None if options.trl is None else options.trl.beta, options.rl_beta, options.orpo_alpha]
    return next((value for value in named if value is not None), None)


def _dpo(options: TrainOptions) -> dict[str, Any]:
    losses = [options.dpo_loss_type] if isinstance(options.dpo_loss_type, str) else options.dpo_loss_type
    if options.dpo_use_liger_kernel:
        _require_liger()
    return _given(
        loss_type=["ipo"] if options.rl == "ipo" else losses or None,
        loss_weights=options.dpo_loss_weights or None,
        label_smoothing=options.dpo_label_smoothing,
        use_weighting=options.dpo_use_weighting,
        use_liger_kernel=options.dpo_use_liger_kernel,
    )


def _require_liger() -> None:
    if not torch.cuda.is_available():
        raise RegrowError(
            "dpo_use_liger_kernel: true needs a CUDA device, and this machine has none.",
            "Remove it: the losses are computed without whole logits in any case.",
        )
    if find_spec("liger_kernel") is None:
        raise MissingExtra("dpo_use_liger_kernel: true", "liger-kernel", "liger")


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
