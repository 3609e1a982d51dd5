"""Rules between options: small pure functions, all in one list. A rule says which keys, what is wrong, what would work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.options.source import Path
from pipeline.options.views import RecipeOptions


@dataclass(frozen=True)
class Broken:
    """A rule that a file breaks. The first of ``keys`` is the one the message points at."""

    keys: tuple[Path, ...]
    wrong: str
    works: str


Rule = Callable[[RecipeOptions], Iterator[Broken]]


def one_evaluation_set(options: RecipeOptions) -> Iterator[Broken]:
    """A split and sets of their own exclude each other."""
    if options.val_set_size and options.test_datasets:
        yield Broken(
            (("val_set_size",), ("test_datasets",)),
            "test_datasets is set too, and only one can say what to evaluate on",
            "remove one of them",
        )


def split_leaves_rows(options: RecipeOptions) -> Iterator[Broken]:
    """1 would be all rows as a share and one row as a count."""
    if options.val_set_size == 1:
        yield Broken(
            (("val_set_size",),),
            "1 leaves nothing to train on as a share, and measures nothing as a count",
            "write a share below 1 such as 0.05, or a count such as 200",
        )
    elif options.val_set_size > 1 and options.val_set_size % 1:
        yield Broken((("val_set_size",),), "a count of rows is a whole number", f"write {int(options.val_set_size)}, or a share below 1")


def one_warmup(options: RecipeOptions) -> Iterator[Broken]:
    """Warm-up is a number of steps or a share of them."""
    if options.warmup_steps is not None and options.warmup_ratio is not None:
        yield Broken(
            (("warmup_ratio",), ("warmup_steps",)), "warmup_steps is set too, and both say how long warm-up lasts", "remove one of them"
        )


def jinja_needs_text(options: RecipeOptions) -> Iterator[Broken]:
    """``chat_template: jinja`` names the text that another key holds."""
    if options.chat_template == "jinja" and options.chat_template_jinja is None:
        yield Broken(
            (("chat_template",), ("chat_template_jinja",)),
            "chat_template_jinja is not set",
            "add `chat_template_jinja: |` with the template, or name a built-in template such as chatml",
        )


def jinja_text_is_used(options: RecipeOptions) -> Iterator[Broken]:
    """Jinja text beside another template's name would be ignored."""
    if options.chat_template_jinja is not None and options.chat_template not in (None, "jinja"):
        yield Broken(
            (("chat_template",), ("chat_template_jinja",)),
            "chat_template_jinja is set too and would not be used",
            "write `chat_template: jinja`, or remove chat_template_jinja",
        )


def one_precision(options: RecipeOptions) -> Iterator[Broken]:
    """Autocast has one dtype."""
    if options.bf16 is True and options.fp16:
        yield Broken((("fp16",), ("bf16",)), "bf16 is true too, and autocast has one dtype", "set `fp16: false`, or `bf16: false`")


def lora_has_targets(options: RecipeOptions) -> Iterator[Broken]:
    """Without targets LoRA has nothing to adapt."""
    if options.adapter is not None and not options.lora_target_linear and not options.lora_target_modules:
        yield Broken(
            (("adapter",), ("lora_target_linear",)),
            "nothing says which modules it adapts",
            "add `lora_target_linear: true`, or list lora_target_modules",
        )


def datasets_are_distinct(options: RecipeOptions) -> Iterator[Broken]:
    """An entry given twice trains its rows twice by accident."""
    for name in ("datasets", "test_datasets"):
        entries = getattr(options, name) or []
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                yield Broken(((name, index),), f"the same entry as {name}.{entries.index(entry)}", "remove it")


RULES: tuple[Rule, ...] = (
    one_evaluation_set,
    split_leaves_rows,
    one_warmup,
    jinja_needs_text,
    jinja_text_is_used,
    one_precision,
    lora_has_targets,
    datasets_are_distinct,
)
