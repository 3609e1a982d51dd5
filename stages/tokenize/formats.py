"""From a dataset entry to the function that turns its rows into examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.options.dataset_types import Kind, full_name, is_own, kind_of
from pipeline.options.datasets import DatasetFormat
from pipeline.options.row_format import RowFormat
from pipeline.options.views import TokenizeOptions
from stages.tokenize.example import Format


@dataclass(frozen=True)
class Surroundings:
    """What formats need to know besides their own entry.

    Attributes:
        options: of the whole stage.
        tokenizer: folder of data/tokenizer.
        special_tokens: texts of the special tokens by name (``bos_token``, ``eos_token``, …).
        chat_template: the tokenizer's, where it has one.
    """

    options: TokenizeOptions
    tokenizer: Path
    special_tokens: Mapping[str, str]
    chat_template: str | None

    @property
    def eos(self) -> str:
        """Text of the end-of-sequence token."""
        return self.special_tokens["eos_token"]


def format_of(entry: DatasetFormat, around: Surroundings) -> Format:
    """The format that ``entry.type`` names, given what is trained.

    Raises:
        RegrowError: there is none, or it cannot be used with this tokenizer.
    """
    kind = kind_of(around.options.rl, around.options.reward_model, around.options.process_reward_model)
    if kind is None:
        raise RegrowError(f"rl: {around.options.rl} is not yet supported.", "Remove it.")
    return _FORMATS[kind](entry, around, kind)


def _text(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    from stages.tokenize.ready import OrReady, ready_format
    from stages.tokenize.user_defined import user_format

    if entry.type is None:
        return ready_format
    if isinstance(entry.type, RowFormat):
        return OrReady(user_format(entry.type, around.eos, around.options.train_on_inputs))
    return OrReady(_named(full_name(entry.type, kind), entry, around))


def _named(name: str, entry: DatasetFormat, around: Surroundings) -> Format:
    from stages.tokenize.chat import chat_format
    from stages.tokenize.completion import completion_format, segments_format
    from stages.tokenize.dialogue import llama2_format, messages_format, pygmalion_format
    from stages.tokenize.instruct import instruct_format, reflection_format
    from stages.tokenize.own import own_format
    from stages.tokenize.prompts import INSTRUCT_TYPES

    inputs = around.options.train_on_inputs
    if name in INSTRUCT_TYPES:
        return instruct_format(name, entry, around.eos, inputs)
    others: dict[str, Callable[[], Format]] = {
        "chat_template": lambda: chat_format(entry, around),
        "completion": lambda: completion_format(entry.field),
        "pretrain": lambda: completion_format(entry.field),
        "input_output": lambda: segments_format(inputs),
        "reflection": lambda: reflection_format(entry, inputs),
        "pygmalion": lambda: pygmalion_format(around.eos, inputs),
        "llama2_chat": lambda: llama2_format(inputs),
        "messages": lambda: messages_format(entry, around.chat_template, inputs),
    }
    return others.get(name, lambda: own_format(name, entry, around.options, around.tokenizer, others["chat_template"]))()


def _preferences(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    from stages.tokenize.own import own_pairs
    from stages.tokenize.preference import feedback_format, own_ready_format, pair_format

    if isinstance(entry.type, str) and is_own(entry.type):
        return own_ready_format(own_pairs(entry.type, around.options, kind), around, kind)
    return feedback_format(entry, around) if kind == "feedback" else pair_format(entry, around, kind)


def _scores(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    from stages.tokenize.preference import scored_format

    return scored_format(entry, around)


def _prompts(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    from stages.tokenize.own import own_prompts
    from stages.tokenize.prompted import own_prompt_format, prompt_format

    if isinstance(entry.type, str) and is_own(entry.type):
        return own_prompt_format(own_prompts(entry.type, around.options, around.tokenizer), around)
    return prompt_format(entry, around)


def _steps(entry: DatasetFormat, around: Surroundings, kind: Kind) -> Format:
    from stages.tokenize.steps import steps_format

    return steps_format(entry, around)


_FORMATS: dict[Kind, Callable[[DatasetFormat, Surroundings, Kind], Format]] = {
    "text": _text,
    "pairs": _preferences,
    "odds": _preferences,
    "feedback": _preferences,
    "scores": _scores,
    "prompts": _prompts,
    "steps": _steps,
}
