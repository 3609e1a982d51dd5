"""Rules about merging the trained adapter or model with others."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions

_PRUNES = ("ties", "dare_linear", "dare_ties")


def merging_takes_several(options: RecipeOptions) -> Iterator[Broken]:
    """A method joins at least two, and says how much of each."""
    merge = options.merge
    if merge.method is None:
        if merge.others is not None:
            yield broken("merge.others merge", "nothing says how they are merged", "add merge.method, such as `method: linear`")
        return
    if merge.others is None:
        yield broken("merge.method merge", "there is nothing to merge with", "name adapters or models in merge.others, or remove it")
    if merge.weight is None:
        yield broken("merge.method merge", "nothing says how much of the trained one goes in", "add merge.weight, such as `weight: 0.5`")


def what_merging_reads(options: RecipeOptions) -> Iterator[Broken]:
    """Weight, density and seed belong to methods."""
    merge, name = options.merge, f"merge.method is {options.merge.method}" if options.merge.method else "merge.method is not set"
    if merge.weight is not None and merge.method is None:
        yield broken("merge.weight", f"it has no effect: {name}", "remove it, or add merge.method and merge.others")
    if merge.seed is not None and merge.method not in ("dare_linear", "dare_ties"):
        yield broken("merge.seed merge.method", f"nothing is drawn: {name}", "remove it; dare_linear and dare_ties read it")
    densities = [("merge.density", merge.density)]
    densities += [(f"merge.others.{number}.density", entry.density) for number, entry in enumerate(listed(options, "merge.others"))]
    for place, density in densities:
        if density is not None and merge.method not in _PRUNES:
            yield broken(f"{place} merge.method", f"nothing is left out: {name}", f"remove it; {', '.join(_PRUNES)} read it")
    if merge.density is None and merge.method in _PRUNES:
        yield broken("merge.method", f"{merge.method} needs to know which share of the changes is kept", "add merge.density, such as 0.5")


def an_arc_has_two_ends(options: RecipeOptions) -> Iterator[Broken]:
    """SLERP goes from one model to one other."""
    merge, others = options.merge, listed(options, "merge.others")
    if merge.method != "slerp":
        return
    if len(others) > 1:
        yield broken("merge.others merge.method", f"slerp has two ends, and here are {len(others) + 1}", "name one, or use linear or ties")
    weights = [weight for weight in (merge.weight, *(entry.weight for entry in others)) if weight is not None]
    if any(weight < 0 for weight in weights) or not sum(weights):
        yield broken("merge.weight merge.method", "slerp takes shares: at least 0, and not all of them", "write such as 0.5 and 0.5")


def merged_models_have_one_shape(options: RecipeOptions) -> Iterator[Broken]:
    """What has other tensors than the base has none to be merged with."""
    for key in ("reward_model", "process_reward_model", "peft_layer_replication"):
        if options.merge.method is not None and getattr(options, key):
            wrong = f"with {key} the trained model has other tensors than the base, which nothing can be merged with"
            yield broken(f"merge.method {key}", wrong, "remove one of them")


MERGING = (merging_takes_several, what_merging_reads, an_arc_has_two_ends, merged_models_have_one_shape)
