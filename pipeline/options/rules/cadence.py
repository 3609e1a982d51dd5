"""Rules about batches, checkpoints and evaluation while training."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from fractions import Fraction

from pipeline.measured import evaluated, is_better_greater
from pipeline.options.rules.broken import Broken, broken, is_set
from pipeline.options.views import RecipeOptions


def two_batch_sizes_give_the_third(options: RecipeOptions) -> Iterator[Broken]:
    """``batch_size`` and accumulation say the same thing."""
    if options.batch_size is not None and is_set(options, "gradient_accumulation_steps"):
        yield broken(
            "batch_size gradient_accumulation_steps",
            "gradient_accumulation_steps is set too, and each gives the other",
            "remove batch_size",
        )
    elif options.batch_size is not None and options.batch_size % options.micro_batch_size:
        wrong = f"not a multiple of micro_batch_size {options.micro_batch_size}"
        yield broken(
            "batch_size micro_batch_size",
            wrong,
            f"write {max(1, options.batch_size // options.micro_batch_size) * options.micro_batch_size}",
        )


def one_process_looks_for_its_batch(options: RecipeOptions) -> Iterator[Broken]:
    """A process without memory would leave the others waiting."""
    if options.auto_find_batch_size and options.train.num_processes > 1:
        wrong = f"{options.train.num_processes} processes train together, and one without memory would leave the others waiting"
        yield broken("auto_find_batch_size train.num_processes", wrong, "find micro_batch_size with one process, and remove it")


def processes_share_the_batch(options: RecipeOptions) -> Iterator[Broken]:
    """All take as many micro-batches to a step."""
    together = options.micro_batch_size * options.train.num_processes
    if options.batch_size is not None and options.batch_size % options.micro_batch_size == 0 and options.batch_size % together:
        wrong = f"not a multiple of the {together} rows that {options.train.num_processes} processes take at once"
        yield broken("batch_size train.num_processes", wrong, f"write {max(1, options.batch_size // together) * together}")


def one_warmup(options: RecipeOptions) -> Iterator[Broken]:
    """Warm-up is a number of steps or a share of them."""
    if options.warmup_steps is not None and options.warmup_ratio is not None:
        yield broken("warmup_ratio warmup_steps", "warmup_steps is set too, and both say how long warm-up lasts", "remove one of them")


def warmup_ends(options: RecipeOptions) -> Iterator[Broken]:
    """After warm-up something must be left."""
    if options.max_steps is not None and (options.warmup_steps or 0) >= options.max_steps > 1:
        wrong = f"max_steps is {options.max_steps}, so the peak learning rate is never used"
        yield broken("warmup_steps max_steps", wrong, f"write less than {options.max_steps}")


def one_save_cadence(options: RecipeOptions) -> Iterator[Broken]:
    """Checkpoints come after steps, per epoch, or by strategy."""
    yield from _one_cadence(options, "save_steps", "saves_per_epoch", "save_strategy")


def one_evaluation_cadence(options: RecipeOptions) -> Iterator[Broken]:
    """Evaluations come after steps, per epoch, or by strategy."""
    yield from _one_cadence(options, "eval_steps", "evals_per_epoch", "eval_strategy")


def _one_cadence(options: RecipeOptions, steps: str, per_epoch: str, strategy: str) -> Iterator[Broken]:
    has_steps, has_rate, how = getattr(options, steps) is not None, bool(getattr(options, per_epoch)), getattr(options, strategy)
    if has_steps and has_rate:
        yield broken(f"{per_epoch} {steps}", f"{steps} is set too, and both say how often", "remove one of them")
    if has_steps and how not in (None, "steps", "best"):
        yield broken(f"{strategy} {steps}", f"{steps} is set too, which means `steps`", f"remove {steps}, or write `{strategy}: steps`")
    if has_rate and how not in (None, "steps"):
        yield broken(f"{strategy} {per_epoch}", f"{per_epoch} is set too, which is counted in steps", f"remove {strategy}")
    if how == "steps" and not has_steps and not has_rate:
        yield broken(f"{strategy} {steps}", f"{steps} does not say after how many steps", f"add {steps}, for example 100")


def evaluation_has_rows(options: RecipeOptions) -> Iterator[Broken]:
    """Without held-out rows nothing can be measured."""
    if not (options.val_set_size or options.test_datasets):
        for key in _evaluation_keys(options):
            yield broken(f"{key} val_set_size", "there are no rows to evaluate on", "add `val_set_size: 0.05`, or test_datasets")


def steps_are_whole(options: RecipeOptions) -> Iterator[Broken]:
    """Below 1 it is a share of all steps, above a number of them."""
    for key in ("save_steps", "eval_steps"):
        value = getattr(options, key)
        if value is not None and value > 1 and value != int(value):
            yield broken(key, "neither a whole number of steps nor a share below 1", f"write {round(value)}")


def _evaluation_keys(options: RecipeOptions) -> list[str]:
    keys = ["eval_steps", "evals_per_epoch", "metric_for_best_model", "load_best_model_at_end", "early_stopping_patience"]
    return [key for key in keys if getattr(options, key)] + (["eval_strategy"] if options.eval_strategy not in (None, "no") else [])


def best_needs_a_metric(options: RecipeOptions) -> Iterator[Broken]:
    """Something must say what best means."""
    if options.save_strategy == "best" and options.metric_for_best_model is None:
        yield broken("save_strategy metric_for_best_model", "metric_for_best_model is not set", "add `metric_for_best_model: eval_loss`")


def best_is_measured(options: RecipeOptions) -> Iterator[Broken]:
    """Only an evaluation can be better than those before."""
    if options.save_strategy == "best" and _evaluations(options) is None:
        yield broken("save_strategy eval_steps", "there are no evaluations while training", "add eval_steps or evals_per_epoch")


def metric_is_measured(options: RecipeOptions) -> Iterator[Broken]:
    """The best model is known by what an evaluation during training measures."""
    metric = options.metric_for_best_model
    measured = evaluated(options.rl, options.reward_model, options.process_reward_model)
    single = options.rl in ("grpo", "gdpo") and metric is not None and "rewards/" in metric
    if metric is not None and not single and f"eval_{metric.removeprefix('eval_')}" not in measured:
        near = get_close_matches(metric, [*measured, *(name.removeprefix("eval_") for name in measured)], 1)
        meant = f"did you mean `{near[0]}`?" if near else f"write {', '.join(measured[:-1])} or {measured[-1]}"
        yield broken("metric_for_best_model", "not measured while training", meant)


def best_is_saved(options: RecipeOptions) -> Iterator[Broken]:
    """The best model can be given back only if it was saved when it was measured."""
    if options.load_best_model_at_end and not _saves_what_it_measures(options):
        wrong = "checkpoints are not written where the evaluation happens, so the best model would be lost"
        yield broken("load_best_model_at_end save_steps eval_steps", wrong, "set eval_steps, and save_steps to it or a multiple of it")


def _saves_what_it_measures(options: RecipeOptions) -> bool:
    measured, saved = _evaluations(options), _saves(options)
    if measured is None or options.save_strategy == "best":
        return measured is not None
    return saved is not None and measured[0] == saved[0] and (saved[1] / measured[1]).denominator == 1


_Interval = tuple[str, Fraction]
"""What it is counted in, and how many of that lie between two of them."""


def _evaluations(options: RecipeOptions) -> _Interval | None:
    return _interval(options.eval_steps, options.evals_per_epoch, options.eval_strategy == "epoch")


def _saves(options: RecipeOptions) -> _Interval | None:
    return _interval(options.save_steps, options.saves_per_epoch, options.save_strategy in (None, "epoch"))


def _interval(steps: int | float | None, per_epoch: int | None, every_epoch: bool) -> _Interval | None:
    if steps is not None:
        return ("share of all steps" if steps < 1 else "steps", Fraction(str(steps)))
    if per_epoch:
        return ("epochs", Fraction(1, per_epoch))
    return ("epochs", Fraction(1)) if every_epoch else None


def stopping_early_measures(options: RecipeOptions) -> Iterator[Broken]:
    """Patience counts evaluations."""
    if options.early_stopping_patience is not None and not (
        options.eval_steps or options.evals_per_epoch or options.eval_strategy not in (None, "no")
    ):
        yield broken(
            "early_stopping_patience eval_steps",
            "it counts evaluations, and there are none while training",
            "add eval_steps or evals_per_epoch",
        )


def better_has_a_direction(options: RecipeOptions) -> Iterator[Broken]:
    """A smaller loss is better."""
    metric = options.metric_for_best_model or ("eval_reward" if options.rl in ("grpo", "gdpo") else "eval_loss")
    if options.greater_is_better is not None and options.greater_is_better != is_better_greater(metric):
        yield broken(
            "greater_is_better metric_for_best_model",
            f"for {metric} it is the other way",
            f"write `greater_is_better: {str(not options.greater_is_better).lower()}`",
        )


def trigger_is_a_name(options: RecipeOptions) -> Iterator[Broken]:
    """The trigger file is looked for in one folder."""
    wanted = options.dynamic_checkpoint
    if wanted is not None and "/" in wanted.trigger_file_path:
        yield broken(
            "dynamic_checkpoint.trigger_file_path",
            "a path; it is the name of a file in one folder",
            f"write {wanted.trigger_file_path.rpartition('/')[2]}",
        )


CADENCE = (
    two_batch_sizes_give_the_third,
    one_process_looks_for_its_batch,
    processes_share_the_batch,
    one_warmup,
    warmup_ends,
    one_save_cadence,
    one_evaluation_cadence,
    evaluation_has_rows,
    steps_are_whole,
    best_needs_a_metric,
    best_is_measured,
    metric_is_measured,
    best_is_saved,
    stopping_early_measures,
    better_has_a_direction,
    trigger_is_a_name,
)
