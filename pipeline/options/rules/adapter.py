"""Rules about adapters, how they begin and what is trained beside them, and about training parts of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.options.adapter import INITIALISATIONS
from pipeline.options.rules.broken import Broken, broken, is_set
from pipeline.options.views import RecipeOptions

_PISSA = re.compile(r"pissa_niter_[1-9][0-9]*")
_SHIFTS_BASE = ("pissa", "olora", "corda", "lora_ga")


def qlora_has_four_bits(options: RecipeOptions) -> Iterator[Broken]:
    """QLoRA is LoRA over a base model in 4 bits."""
    if options.adapter != "qlora":
        return
    if not options.load_in_4bit:
        yield broken("adapter load_in_4bit", "qlora holds the base model in 4 bits", "add `load_in_4bit: true`, or write `adapter: lora`")
    for other in ("load_in_8bit", "gptq"):
        if getattr(options, other):
            yield broken(f"{other} adapter", "qlora holds the base model in 4 bits", "remove it")


def initialisation_is_known(options: RecipeOptions) -> Iterator[Broken]:
    """PEFT takes any name and fails later, or not at all."""
    name = options.peft_init_lora_weights
    if isinstance(name, str) and name not in INITIALISATIONS and not _PISSA.fullmatch(name):
        works = f"write true, false, pissa_niter_4 (any number), {', '.join(INITIALISATIONS[:-1])} or {INITIALISATIONS[-1]}"
        yield broken("peft_init_lora_weights", "no such initialisation", works)


def one_initialisation(options: RecipeOptions) -> Iterator[Broken]:
    """The settings of LoftQ ask for LoftQ."""
    settings = options.peft is not None and options.peft.loftq_config is not None
    if settings and is_set(options, "peft_init_lora_weights") and options.peft_init_lora_weights != "loftq":
        wrong = "peft.loftq_config is set too, and an adapter begins in one way"
        yield broken("peft_init_lora_weights peft.loftq_config", wrong, "remove one of them")


def shifted_base_is_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Some initialisations take their part out of the base weights, which must then be plain and each on its own."""
    name = _initialisation(options)
    if not name.startswith((*_SHIFTS_BASE, "loftq")):
        return
    for other in ("load_in_4bit", "load_in_8bit", "gptq", "peft_layer_replication", "lora_target_parameters"):
        if getattr(options, other):
            wrong = f"{name} changes the base weights, which {other} does not allow"
            yield broken(f"{other} peft_init_lora_weights", wrong, f"write `peft_init_lora_weights: true`, or remove {other}")


def parameters_begin_plainly(options: RecipeOptions) -> Iterator[Broken]:
    """PEFT adapts single parameters with plain LoRA alone."""
    if not options.lora_target_parameters:
        return
    if options.peft_use_dora:
        yield broken("peft_use_dora lora_target_parameters", "single parameters are adapted with plain LoRA", "remove one of them")
    if _initialisation(options) in ("eva", "orthogonal"):
        yield broken("peft_init_lora_weights lora_target_parameters", "needs modules", "write true, false or gaussian")


def orthogonal_ranks_are_even(options: RecipeOptions) -> Iterator[Broken]:
    """Half of the rows of an orthogonal matrix go to each factor."""
    ranks = {"lora_r": options.lora_r} | {f"lora_rank_pattern.{key}": rank for key, rank in (options.lora_rank_pattern or {}).items()}
    for key, rank in ranks.items():
        if options.peft_init_lora_weights == "orthogonal" and rank % 2:
            yield broken(f"{key.split('.')[0]} peft_init_lora_weights", "orthogonal needs an even rank", f"write {rank + 1}")


def orthogonal_begins_in_floats(options: RecipeOptions) -> Iterator[Broken]:
    """PEFT makes its factors of the kind of number that the weight has."""
    for other in ("load_in_4bit", "load_in_8bit"):
        if options.peft_init_lora_weights == "orthogonal" and getattr(options, other):
            yield broken(f"peft_init_lora_weights {other}", "orthogonal needs weights in floats", "write true, gaussian or eva")


def ranks_are_positive(options: RecipeOptions) -> Iterator[Broken]:
    """As lora_r and lora_alpha are."""
    for key in ("lora_rank_pattern", "lora_alpha_pattern"):
        for pattern, value in (getattr(options, key) or {}).items():
            if value < 1:
                yield broken(key, f"{value} for {pattern!r} is less than 1", "write 1 or more")


def names_are_patterns(options: RecipeOptions) -> Iterator[Broken]:
    """Where names are matched as regular expressions, they must be some."""
    patterns: dict[str, list[str]] = {
        "lora_rank_pattern": [*(options.lora_rank_pattern or {})],
        "lora_alpha_pattern": [*(options.lora_alpha_pattern or {})],
        "lora_exclude_modules": [options.lora_exclude_modules] if isinstance(options.lora_exclude_modules, str) else [],
        "unfrozen_parameters": [re.sub(r"\[[0-9]*(:[0-9]*)?\]$", "", pattern) for pattern in options.unfrozen_parameters or []],
    }
    for key, values in patterns.items():
        for pattern in values:
            try:
                re.compile(pattern)
            except re.error as error:
                yield broken(key, f"{pattern!r} is no regular expression ({error})", "correct it")


def row_ranges_hold_rows(options: RecipeOptions) -> Iterator[Broken]:
    """``[a:b]`` means rows a to b-1."""
    for pattern in options.unfrozen_parameters or []:
        found = re.search(r"\[([0-9]+):([0-9]+)\]$", pattern)
        if found and int(found[1]) >= int(found[2]):
            yield broken("unfrozen_parameters", f"{found[0]} holds no row", "write the larger number second")


def numbers_count_in_names(options: RecipeOptions) -> Iterator[Broken]:
    """A regular expression already says which layers."""
    named = options.lora_target_modules
    if options.peft_layers_to_transform and isinstance(named, str) and named != "all-linear":
        wrong = "lora_target_modules is one text, which says itself which layers"
        yield broken("peft_layers_to_transform lora_target_modules", wrong, "write lora_target_modules as a list of names")
    if options.peft_layers_to_transform and options.lora_target_parameters:
        works = "name the parameters of each layer in full, as layers.1.mlp.experts.down_proj, and remove peft_layers_to_transform"
        yield broken("peft_layers_to_transform lora_target_parameters", "layers are counted for modules, not for parameters", works)


def replicated_layers_are_ranges(options: RecipeOptions) -> Iterator[Broken]:
    """Each range [from, to) counts upwards from 0."""
    for start, end in options.peft_layer_replication or []:
        if not 0 <= start < end:
            yield broken("peft_layer_replication", f"[{start}, {end}] holds no layer", "write [from, to) with 0 <= from < to")


def lisa_says_when(options: RecipeOptions) -> Iterator[Broken]:
    """LISA freezes and unfreezes whole layers of the model itself."""
    if options.lisa_n_layers is None:
        return
    if options.lisa_step_interval is None:
        yield broken("lisa_n_layers lisa_step_interval", "lisa_step_interval is not set", "add it, for example 20")
    if options.adapter is not None:
        yield broken("lisa_n_layers adapter", "an adapter freezes all other weights", "remove one of them")
    if options.unfrozen_parameters:
        yield broken("lisa_n_layers unfrozen_parameters", "both choose what is trained", "remove one of them")


def relora_merges_plain_lora(options: RecipeOptions) -> Iterator[Broken]:
    """At a restart the adapter must vanish into weights that can take it, and begin as nothing."""
    if not options.relora:
        return
    if _initialisation(options) not in ("True", "gaussian"):
        yield broken("peft_init_lora_weights relora", "a new adapter must begin as zero", "write true or gaussian")
    for other in ("load_in_4bit", "load_in_8bit", "gptq", "peft_use_dora", "peft_layer_replication", "lora_target_parameters"):
        if getattr(options, other):
            yield broken(f"relora {other}", f"relora merges plain LoRA into plain weights; {other} is set", "remove one of them")


def an_adapter_begins_once(options: RecipeOptions) -> Iterator[Broken]:
    """The adapter of lora_model_dir has begun, and lies on the base model as it came."""
    if options.lora_model_dir is None:
        return
    if options.peft is not None and options.peft.loftq_config is not None:
        yield broken("peft.loftq_config lora_model_dir", "the adapter of lora_model_dir has begun already", "remove one of them")
    if options.relora:
        yield broken("relora lora_model_dir", "relora begins with a new adapter", "merge that adapter first, or remove one of them")


def _initialisation(options: RecipeOptions) -> str:
    settings = options.peft is not None and options.peft.loftq_config is not None
    return "loftq" if settings else str(options.peft_init_lora_weights)


ADAPTER = (
    qlora_has_four_bits,
    initialisation_is_known,
    one_initialisation,
    shifted_base_is_whole,
    parameters_begin_plainly,
    orthogonal_ranks_are_even,
    orthogonal_begins_in_floats,
    ranks_are_positive,
    names_are_patterns,
    row_ranges_hold_rows,
    numbers_count_in_names,
    replicated_layers_are_ranges,
    lisa_says_when,
    relora_merges_plain_lora,
    an_adapter_begins_once,
)
