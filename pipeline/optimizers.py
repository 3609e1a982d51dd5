"""What is known of each optimizer without importing it: where its class is, what it takes, what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Updates = Literal["at the end", "during the backward pass"]

BETAS = ("adam_beta1", "adam_beta2", "adam_beta3")
EPSILONS = ("adam_epsilon", "adam_epsilon2")
ADAM_KEYS = (*BETAS, *EPSILONS)
DION_KEYS = ("dion_lr", "dion_momentum", "dion_rank_fraction", "dion_rank_multiple_of")
CUDA = "a CUDA GPU"


@dataclass(frozen=True)
class Known:
    """One optimizer.

    Attributes:
        place: ``module:Class``; empty for those of regrow itself.
        betas: defaults of the betas that it takes, none or two or three.
        epsilons: defaults of the epsilons that it takes, none or one or two.
        fixed: arguments that the name stands for.
        package: what must be installed, by the name it is imported with; see :data:`PINNED`.
        needs: hardware without which it cannot run.
        projection: arguments for the groups of ``optim_target_modules``, with their defaults.
        updates: when it changes weights. During the backward pass, gradients are gone when it ends.
        matrices: it trains matrices of hidden layers only, and AdamW the rest.
        own_loop: it finds the parameters in the model by itself, all with one learning rate.
        divisible: DeepSpeed may cut parameters anywhere. What becomes of a number depends on its own gradient alone, and its state
            is made with its first step and read back as it was (adagrad and optimi_adamw do otherwise).
    """

    place: str
    betas: tuple[float, ...] = ()
    epsilons: tuple[float, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    needs: str = ""
    projection: Mapping[str, Any] = field(default_factory=dict)
    updates: Updates = "at the end"
    matrices: bool = False
    own_loop: bool = False
    divisible: bool = False

    @property
    def adam_keys(self) -> tuple[str, ...]:
        """The options that set its betas and epsilons. Of a pair with AdamW, they are AdamW's."""
        if self.matrices:
            return (*BETAS[:2], *EPSILONS[:1])
        return (*BETAS[: len(self.betas)], *EPSILONS[: len(self.epsilons)])


_ADAM, _LION = (0.9, 0.999), (0.9, 0.99)
_EPSILON = (1e-8,)


def _adam(place: str, package: str = "", **more: Any) -> Known:
    return Known(place, _ADAM, _EPSILON, package=package, **more)


def _bitsandbytes(name: str, bits: int, *, paged: bool = False) -> Known:
    betas = {"AdEMAMix": (*_ADAM, 0.9999), "RMSprop": ()}.get(name, _ADAM)
    fixed: dict[str, Any] = {"optim_bits": bits} | ({} if name == "RMSprop" else {"is_paged": paged})
    epsilons = _EPSILON if name in ("AdamW", "AdEMAMix") else ()
    return Known(f"bitsandbytes.optim:{name}", betas, epsilons, fixed, "bitsandbytes")


_GALORE = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
_APOLLO = {"rank": 128, "proj": "random", "scale_type": "channel", "update_proj_gap": 200, "scale": 1.0, "proj_type": "std"}


def _galore(name: str, **more: Any) -> Known:
    quiet = {"no_deprecation_warning": True} if name == "GaLoreAdamW" else {}
    # A rate that a schedule gives, instead of one that Adafactor makes up.
    rates = {"scale_parameter": False, "relative_step": False} if name == "GaLoreAdafactor" else {}
    betas, epsilons = ((), ()) if name == "GaLoreAdafactor" else (_ADAM, _EPSILON)
    return Known(f"galore_torch:{name}", betas, epsilons, quiet | rates, "galore_torch", projection=_GALORE, **more)


def _layerwise(known: Known) -> Known:
    return replace(known, updates="during the backward pass")


def _galore_8bit() -> Known:
    # It hands these two on by position, where bitsandbytes 0.50 has max_unorm and skip_zeros instead.
    return replace(_galore("GaLoreAdamW8bit", needs=CUDA), fixed={"percentile_clipping": 0.0, "block_wise": False})


_GALORE_8BIT = _galore_8bit()
_APOLLO_ADAMW = _adam("apollo_torch:APOLLOAdamW", "apollo_torch", projection=_APOLLO)
_LION_PYTORCH = Known("lion_pytorch:Lion", _LION, package="lion_pytorch", divisible=True)


def _flash(name: str, betas: tuple[float, ...] = (), epsilons: tuple[float, ...] = ()) -> Known:
    return Known(f"flashoptim:{name}", betas, epsilons, package="flashoptim", needs=CUDA)


def _torchao(name: str) -> Known:
    return _adam(f"torchao.optim:{name}", "torchao")


OPTIMIZERS: dict[str, Known] = {
    "adamw_torch": _adam("torch.optim:AdamW", divisible=True),
    "adamw_torch_fused": _adam("torch.optim:AdamW", fixed={"fused": True}, divisible=True),
    "adafactor": Known("transformers.optimization:Adafactor", fixed={"scale_parameter": False, "relative_step": False}),
    "sgd": Known("torch.optim:SGD", divisible=True),
    "adagrad": Known("torch.optim:Adagrad"),
    "rmsprop": Known("torch.optim:RMSprop", divisible=True),
    # Its updates then have the size of AdamW's, so that one learning rate and weight decay serve both.
    "muon": Known("torch.optim:Muon", fixed={"adjust_lr_fn": "match_rms_adamw"}, matrices=True),
    "dion": Known("", matrices=True),
    "sinkgd": Known("", matrices=True),
    "adopt_adamw": Known("", (0.9, 0.9999), (1e-6,), divisible=True),
    "adamw_8bit": _bitsandbytes("AdamW", 8),
    "adamw_bnb_8bit": _bitsandbytes("AdamW", 8),
    "ademamix": _bitsandbytes("AdEMAMix", 32),
    "ademamix_8bit": _bitsandbytes("AdEMAMix", 8),
    "lion_32bit": _bitsandbytes("Lion", 32),
    "lion_8bit": _bitsandbytes("Lion", 8),
    "paged_adamw_32bit": _bitsandbytes("AdamW", 32, paged=True),
    "paged_adamw_8bit": _bitsandbytes("AdamW", 8, paged=True),
    "paged_ademamix_32bit": _bitsandbytes("AdEMAMix", 32, paged=True),
    "paged_ademamix_8bit": _bitsandbytes("AdEMAMix", 8, paged=True),
    "paged_lion_32bit": _bitsandbytes("Lion", 32, paged=True),
    "paged_lion_8bit": _bitsandbytes("Lion", 8, paged=True),
    "rmsprop_bnb": _bitsandbytes("RMSprop", 32),
    "rmsprop_bnb_8bit": _bitsandbytes("RMSprop", 8),
    "rmsprop_bnb_32bit": _bitsandbytes("RMSprop", 32),
    "adamw_torch_4bit": _torchao("AdamW4bit"),
    "adamw_torch_8bit": _torchao("AdamW8bit"),
    "ao_adamw_4bit": _torchao("AdamW4bit"),
    "ao_adamw_8bit": _torchao("AdamW8bit"),
    "ao_adamw_fp8": _torchao("AdamWFp8"),
    "galore_adamw": _galore("GaLoreAdamW"),
    "galore_adamw_8bit": _GALORE_8BIT,
    "galore_adafactor": _galore("GaLoreAdafactor"),
    "galore_adamw_layerwise": _layerwise(_galore("GaLoreAdamW")),
    "galore_adamw_8bit_layerwise": _layerwise(_GALORE_8BIT),
    "galore_adafactor_layerwise": _layerwise(_galore("GaLoreAdafactor")),
    "apollo_adamw": _APOLLO_ADAMW,
    "apollo_adamw_layerwise": _layerwise(_APOLLO_ADAMW),
    "lomo": Known("lomo_optim:Lomo", package="lomo_optim", updates="during the backward pass", own_loop=True),
    "grokadamw": _adam("grokadamw:GrokAdamW", "grokadamw"),
    "schedule_free_adamw": _adam("schedulefree:AdamWScheduleFree", "schedulefree"),
    "schedule_free_radam": _adam("schedulefree:RAdamScheduleFree", "schedulefree"),
    "schedule_free_sgd": Known("schedulefree:SGDScheduleFree", package="schedulefree"),
    "stable_adamw": _adam("optimi:StableAdamW", "optimi"),
    "optimi_adamw": Known("optimi:AdamW", _LION, (1e-6,), package="optimi"),
    "came_pytorch": Known("came_pytorch:CAME", (*_ADAM, 0.9999), (1e-30, 1e-16), package="came_pytorch"),
    "lion": _LION_PYTORCH,
    "lion_pytorch": _LION_PYTORCH,
    "flash_adamw": _flash("FlashAdamW", _ADAM, _EPSILON),
    "flash_adam": _flash("FlashAdam", _ADAM, _EPSILON),
    "flash_sgd": _flash("FlashSGD"),
    "flash_sgdw": _flash("FlashSGDW"),
    "flash_lion": _flash("FlashLion", _LION),
}

PINNED: dict[str, tuple[str, str, str]] = {
    "apollo_torch": ("apollo-torch", "1.0.3", "apollo"),
    "bitsandbytes": ("bitsandbytes", "0.50.2", "bitsandbytes"),
    "came_pytorch": ("came-pytorch", "0.1.3", "optimizers"),
    "deepspeed": ("deepspeed", "0.19.8", "deepspeed"),
    "flashoptim": ("flashoptim", "0.1.4", "flashoptim"),
    "galore_torch": ("galore-torch", "1.0", "galore"),
    "grokadamw": ("grokadamw", "0.1.2", "optimizers"),
    "lion_pytorch": ("lion-pytorch", "0.2.5", "optimizers"),
    "lomo_optim": ("lomo-optim", "0.1.1", "optimizers"),
    "optimi": ("torch-optimi", "0.3.3", "optimizers"),
    "schedulefree": ("schedulefree", "1.4.1", "optimizers"),
    "torchao": ("torchao", "0.18.0", "int8"),
}
"""Package by the name it is imported with: distribution, version, extra of regrow.

The version decides what is trained and is no part of the lock: standing here it is part of the stage's code, and another one
is refused.
"""

BUILT_ON = {"apollo_torch": "bitsandbytes", "galore_torch": "bitsandbytes"}
"""Packages that import another of these."""

EXTRAS = tuple((name, known.package, PINNED[known.package][2]) for name, known in OPTIMIZERS.items() if known.package)
"""Name, package, extra of regrow: as :func:`pipeline.options.schema.option` takes them."""

GONE: tuple[tuple[str, str, str], ...] = (
    ("adamw_hf", "transformers has removed it", "write adamw_torch, which computes the same"),
    ("adamw_apex_fused", "transformers has removed it", "write adamw_torch_fused, which is as fast"),
    ("adamw_anyprecision", "torchdistx, which it is in, is archived and does not build for this torch", "write optimi_adamw"),
    ("adamw_torch_xla", "it is for TPUs, on which regrow does not run", "write adamw_torch"),
    ("adamw_torch_npu_fused", "it is for Ascend NPUs, on which regrow does not run", "write adamw_torch"),
    ("adalomo", "it keeps its state where no checkpoint finds it, so a killed run could not be resumed", "write lomo, or adafactor"),
    ("q_galore_adamw8bit", "its package calls functions that bitsandbytes has removed", "write galore_adamw_8bit"),
)
"""Names that will not work: name, why, what to write."""
