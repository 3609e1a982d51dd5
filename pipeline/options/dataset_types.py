"""Names that a dataset's `type` may have. What a name means depends on what is trained: texts, pairs of answers, rewards."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from pipeline.options.row_format import RowFormat

Kind = Literal["text", "pairs", "odds", "feedback", "scores", "steps", "prompts"]
"""What a row is for: text to predict; a pair of answers (DPO, IPO, SimPO; ORPO has other rows); one answer that is wanted
or not (KTO); a pair that a reward model scores; steps that a process reward model judges; a prompt that the model answers
itself (GRPO)."""

STYLES = ("instruct", "chat", "chatml", "phi")

STYLED = {
    **dict.fromkeys(("alpaca", "explainchoice", "jeopardy", "oasst", "gpteacher"), STYLES),
    **dict.fromkeys(("concisechoice", "summarizetldr"), STYLES),
    "reflection": ("instruct", "chat"),
}
"""Types that may name a style behind a colon (``alpaca:chat``)."""

UNSTYLED = ("concisechoice", "summarizetldr")
"""Of these, types whose texts are the same in every style."""

_SHORTENED = ("chatml", "llama3")
_TEXT = (
    *("chat_template", "messages", "completion", "input_output", "pretrain", *STYLED),
    *("alpaca_chat", "alpaca_chat.load_concise", "alpaca_chat.load_qa", "alpaca_chat.load_camel_ai", "alpaca_chat.load_no_prompt"),
    *("alpaca_instruct", "alpaca_instruct.load_no_prompt", "alpaca_w_system", "alpaca_w_system.load_chat"),
    *("alpaca_w_system.load_instruct", "alpaca_w_system.load_open_orca", "alpaca_w_system.load_open_orca_chatml", "orcamini"),
    *("context_qa", "context_qa.load_404", "context_qa.load_v2"),
    *("creative_acr.load_answer", "creative_acr.load_critique", "creative_acr.load_revise", "metharme", "pygmalion", "llama2_chat"),
)
_PAIRS = tuple(f"{style}.{form}" for style in _SHORTENED for form in ("default", "argilla_chat", "icr", "intel", "prompt_pairs", "ultra"))
_FEEDBACK = tuple(f"{style}.{form}" for style in _SHORTENED for form in ("argilla", "argilla_chat", "intel", "prompt_pairs", "ultra"))

TYPES: dict[Kind, tuple[str, ...]] = {
    "text": _TEXT,
    "pairs": (*_PAIRS, "zephyr.nectar", "chat_template.default", "chat_template.argilla_chat", "passthrough"),
    "odds": ("chat_template.argilla", "orpo.chat_template"),
    "feedback": _FEEDBACK,
    "scores": ("bradley_terry.chat_template",),
    "steps": ("stepwise_supervised",),
    "prompts": ("chat_template",),
}
"""Every name, by what is trained. Left out of a name: the style behind a colon, and ``.load`` and ``.default``."""

_ASKED_BY: dict[Kind, str] = {
    "text": "training without rl and reward models",
    "pairs": "`rl: dpo`, ipo or simpo",
    "odds": "`rl: orpo`",
    "feedback": "`rl: kto`",
    "scores": "`reward_model: true`",
    "steps": "`process_reward_model: true`",
    "prompts": "`rl: grpo`",
}

_RL: dict[str, Kind] = {
    **{"dpo": "pairs", "ipo": "pairs", "simpo": "pairs", "orpo": "odds", "kto": "feedback"},
    **{"grpo": "prompts", "gdpo": "prompts"},
}

_PAIR_KEYS = ("field_prompt", "field_system", "field_chosen", "field_rejected", "prompt_format", "chosen_format", "rejected_format")

MAPPINGS: dict[Kind, tuple[str, ...]] = {
    "text": (
        *("system_prompt", "system_format", "field_system", "field_instruction", "field_input", "field_output"),
        *("format", "no_input_format"),
    ),
    "pairs": _PAIR_KEYS,
    "odds": _PAIR_KEYS,
    "feedback": ("field_prompt", "field_system", "field_completion", "field_label", "prompt_format", "completion_format"),
}
"""Keys of a type that is a mapping of columns and texts, by what is trained. Other kinds of rows have no such mapping."""

_PAIR_TEMPLATES = ("chat_template.default", "chat_template.argilla_chat")
_ALL_TEMPLATES = ("chat_template", *_PAIR_TEMPLATES, "chat_template.argilla", "orpo.chat_template", "bradley_terry.chat_template")
_STEPS = ("stepwise_supervised",)

READERS: dict[str, tuple[str, ...]] = {
    "field": ("completion", "pretrain"),
    "field_messages": ("chat_template", "messages", "chat_template.default"),
    "message_property_mappings": ("chat_template", "messages", *_PAIR_TEMPLATES),
    "message_field_training": ("chat_template", "messages"),
    "roles": ("chat_template", *_PAIR_TEMPLATES),
    "chat_template": (*_ALL_TEMPLATES, "messages"),
    "chat_template_jinja": _ALL_TEMPLATES,
    **dict.fromkeys(
        (
            *("roles_to_train", "train_on_eos", "train_on_eot", "message_field_training_detail", "drop_system_message"),
            *("field_tools", "field_thinking", "template_thinking_key", "split_thinking"),
        ),
        ("chat_template",),
    ),
    "conversation": ("alpaca_chat",),
    "input_transform": ("messages",),
    **dict.fromkeys(("field_chosen", "field_rejected"), _PAIR_TEMPLATES),
    **dict.fromkeys(("step_separator", "max_completion_length", "train_on_last_step_only"), _STEPS),
}
"""Keys of a dataset entry that only some types read, and these types. Types of the user's own may read all of them."""

SAY_WHAT_IS_TRAINED = (*("roles_to_train", "train_on_eos", "train_on_eot", "message_field_training", "message_field_training_detail"),)
"""Of these, the ones that mean nothing for a prompt, of which nothing is trained."""


def kind_of(rl: str | None, reward_model: bool, process_reward_model: bool) -> Kind | None:
    """What rows are for; ``None`` for a kind of training that regrow does not know the rows of."""
    if rl is not None:
        return _RL.get(rl)
    return "scores" if reward_model else "steps" if process_reward_model else "text"


def full_name(value: str, kind: Kind) -> str:
    """A type's name as :data:`TYPES` has it: without style and ``.load``, with ``.default``."""
    first = value.partition(":")[0]
    name = first if first in STYLED else value
    short, long = name.removesuffix(".load"), f"{name}.default"
    return short if short in TYPES[kind] else long if long in TYPES[kind] else name


def is_own(value: str) -> bool:
    """Whether the name is a dotted one of the user's own: a module or function that can be imported."""
    known = {name.partition(".")[0] for names in TYPES.values() for name in names} | {"user_defined"}
    parts = value.split(".")
    return len(parts) > 1 and parts[0] not in known and all(part.isidentifier() for part in parts)


def type_problem(value: str | RowFormat | None, kind: Kind) -> tuple[str, str] | None:
    """What is wrong with a dataset's type and what would work, or ``None``. ``None`` as a type: rows that are ready."""
    if value is None:
        return None if kind not in ("scores", "steps") else ("not set", f"write `type: {TYPES[kind][0]}`")
    if isinstance(value, RowFormat):
        works = f"what works with {_ASKED_BY[kind]}: {_listed(TYPES[kind])}"
        return None if kind in MAPPINGS else ("no mapping of columns says how such rows are read", works)
    if is_own(value):
        has_own = kind in MAPPINGS or kind == "prompts"
        return None if has_own else ("rows of your own have no steps or scores", f"what works: {_listed(TYPES[kind])}")
    first, _, style = value.partition(":")
    if first in STYLED and kind == "text" and style not in ("", *STYLED[first]):
        return f"{first} has no style {style!r}", f"its styles: {', '.join(STYLED[first])}"
    if first.partition(".")[0] == "sharegpt":
        return "refused: Axolotl removed sharegpt", "write `type: chat_template` with `field_messages` and `message_property_mappings`"
    if full_name(value, kind) in TYPES[kind]:
        return None
    return _unknown(value, kind)


def _unknown(value: str, kind: Kind) -> tuple[str, str]:
    for other in TYPES:
        if full_name(value, other) in TYPES[other]:
            return f"it is a type for {_ASKED_BY[other]}", f"what works here: {_listed(TYPES[kind])}"
    if value == "user_defined":
        return "no such type", "write the mapping of columns and texts itself as the type"
    near = nearest(value, TYPES[kind])
    return "no such type", f"did you mean {near}?" if near else f"what works: {_listed(TYPES[kind])}, or a dotted name of your own"


def nearest(value: str, names: Sequence[str]) -> str:
    """The names that resemble ``value`` most, in words; empty when none does."""
    near = difflib.get_close_matches(value.replace(":", "."), names, n=3, cutoff=0.7)
    family = [name for name in names if name.startswith(value.partition(":")[0].partition(".")[0] + ".")]
    return " or ".join(f"`{name}`" for name in dict.fromkeys([*near, *family[:3]]))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
