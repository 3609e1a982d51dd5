"""Rules about learning from pairs of answers, from wanted and unwanted ones, and about models that judge answers."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pipeline.options.preference import LOSSES, SMOOTHED
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions

_COMPARED = ("dpo", "ipo", "kto", "orpo", "simpo")
_REFERRED = ("dpo", "ipo", "kto")


def _losses(options: RecipeOptions) -> list[str]:
    if options.rl == "ipo":
        return ["ipo"]
    given = options.dpo_loss_type or "sigmoid"
    return [given] if isinstance(given, str) else given


def losses_are_known(options: RecipeOptions) -> Iterator[Broken]:
    """TRL has these."""
    for name in sorted(set(_losses(options)) - set(LOSSES)):
        near = difflib.get_close_matches(name, LOSSES, 1)
        yield broken("dpo_loss_type", f"no loss is called {name}", f"did you mean {near[0]}?" if near else f"write {', '.join(LOSSES)}")


def ipo_is_a_loss(options: RecipeOptions) -> Iterator[Broken]:
    """`rl: ipo` is DPO with that loss."""
    if options.rl == "ipo" and options.dpo_loss_type not in (None, "ipo", ["ipo"]):
        yield broken("dpo_loss_type rl", "rl: ipo names the loss already", "write `rl: dpo`, or remove dpo_loss_type")


def weights_are_of_single_pairs(options: RecipeOptions) -> Iterator[Broken]:
    """These losses are of a batch as a whole."""
    unweighted = [name for name in _losses(options) if name in ("aot", "aot_unpaired", "sft")]
    if options.dpo_use_weighting and unweighted:
        wrong = f"the loss {unweighted[0]} is of all pairs of a batch together, and TRL cannot weight it"
        yield broken("dpo_use_weighting dpo_loss_type", wrong, "write `dpo_use_weighting: false`, or another loss")


def swapped_pairs_have_a_place(options: RecipeOptions) -> Iterator[Broken]:
    """TRL's other losses have no term for pairs that are swapped."""
    share, losses = options.dpo_label_smoothing or 0, _losses(options)
    if share and not set(losses) & set(SMOOTHED):
        wrong = f"the loss {losses[0]} does not look at it"
        yield broken("dpo_label_smoothing dpo_loss_type", wrong, f"write `dpo_loss_type: robust` (or {', '.join(SMOOTHED[1:])})")
    if not share and options.rl == "dpo" and "exo_pair" in losses:
        yield broken("dpo_loss_type", "exo_pair needs a share of swapped pairs", "add `dpo_label_smoothing: 0.001`")


def feedback_has_company(options: RecipeOptions) -> Iterator[Broken]:
    """KTO estimates how far the model is from the reference on the rows of a micro-batch."""
    if options.rl == "kto" and options.micro_batch_size < 2:
        yield broken("micro_batch_size rl", "rl: kto compares the rows of a micro-batch", "write `micro_batch_size: 2` or more")


def one_weight_of_the_odds(options: RecipeOptions) -> Iterator[Broken]:
    """TRL calls it beta."""
    for key, value in (("rl_beta", options.rl_beta), ("trl.beta", None if options.trl is None else options.trl.beta)):
        if options.orpo_alpha is not None and value not in (None, options.orpo_alpha):
            yield broken(f"orpo_alpha {key}", f"{key} is {value}, and both mean the same", "remove one of them")


def preferences_hold_on(options: RecipeOptions) -> Iterator[Broken]:
    """With no weight nothing is learned from a pair."""
    if options.rl in _COMPARED and options.trl is not None and options.trl.beta == 0:
        yield broken("trl.beta rl", f"rl: {options.rl} learns nothing with a weight of 0", "write `beta: 0.1`")


def the_reference_stays(options: RecipeOptions) -> Iterator[Broken]:
    """Without its adapter the model is the reference."""
    if options.relora and options.rl in _REFERRED:
        wrong = f"it changes the weights under the adapter, which are the reference of rl: {options.rl}"
        yield broken("relora rl", wrong, "write `relora: false`")


def compared_rows_stand_alone(options: RecipeOptions) -> Iterator[Broken]:
    """Rows of a pair are padded to one length, each a row of its batch, with positions from 0 on."""
    compared = f"rl: {options.rl}" if options.rl in _COMPARED else "reward_model: true" if options.reward_model else None
    key = "rl" if options.rl else "reward_model"
    if compared and options.batch_flattening is True:
        yield broken(f"batch_flattening {key}", f"{compared} compares rows of a batch one by one", "write `group_by_length: true` instead")
    if compared and options.use_pose:
        yield broken(f"use_pose {key}", f"{compared} has no positions to skip", "write `use_pose: false`")


def losses_come_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Only the cross-entropy of text is computed in pieces here; TRL's losses never hold all logits anyway."""
    for key in ("rl", "reward_model", "process_reward_model"):
        if options.chunked_cross_entropy and getattr(options, key):
            yield broken(f"chunked_cross_entropy {key}", f"{key} has another loss", "write `chunked_cross_entropy: false`")


def judges_are_given_out_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Their head is new: with an adapter, what is given out is the base model with adapter and head in it."""
    for kind in ("reward_model", "process_reward_model"):
        for key in ("load_in_4bit", "load_in_8bit", "lora_model_dir", "relora"):
            if getattr(options, kind) and getattr(options, key):
                wrong = "models that judge are given out whole, in full precision, and made from the base model"
                yield broken(f"{key} {kind}", wrong, f"remove {key}")


COMPARISONS = (
    losses_are_known,
    ipo_is_a_loss,
    weights_are_of_single_pairs,
    swapped_pairs_have_a_place,
    feedback_has_company,
    one_weight_of_the_odds,
    preferences_hold_on,
    the_reference_stays,
    compared_rows_stand_alone,
    losses_come_whole,
    judges_are_given_out_whole,
)
