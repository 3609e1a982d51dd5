"""Where rows come from and how they become tokens. An entry is one model, whatever it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pipeline.data_files import DataFiles
from pipeline.options.row_format import RowFormat
from pipeline.options.schema import Group, Nested, not_yet, option, refused, renamed
from pipeline.options.tokenizer import TemplateChoice


class DatasetSource(Group):
    """The part of a dataset entry that fetch reads."""

    path: str = option(
        ...,
        "A hub dataset id; a local file, folder or pattern (data/*.jsonl); https://HOST/FILE; s3://, gs://, az:// or oci:// with bucket "
        "and path; pypi:NAME==VERSION/path/in/the/wheel. #sha256=HEX pins a file. Or json, csv, parquet, arrow or text, for data_files.",
        min_length=1,
    )
    ds_type: Literal["json", "jsonl", "csv", "parquet", "arrow", "text"] | None = option(
        None, "Format of the files, when their suffix does not say."
    )
    data_files: DataFiles | None = option(
        None,
        "Files to take, by name or pattern, for each split if wanted: of a folder or hub dataset, or of the format in path.",
        min_length=1,
    )
    revision: str | None = option(None, "Commit, tag or branch of a hub dataset.")
    name: str | list[str] | None = option(None, "Configuration of a hub dataset or folder, or several of them.", min_length=1)
    split: str | None = option(None, "Split of the dataset, with a slice if wanted (train[:1000], train[10%:20%]+test); default train.")
    shards: int | None = option(None, "Take one of so many random parts of the rows, as `seed` has it.", ge=1)
    shards_idx: int | None = option(None, "Which of the parts, from 0; default 0.", ge=0)
    preprocess_shards: int | None = refused(
        "Tokenize in so many steps, to save memory.", "rows are streamed, memory does not grow with their number", idle=(1,)
    )
    trust_remote_code: bool | None = refused(
        "Run code that comes with a hub dataset.", "rows are read from files, and scripts are never run", default=False
    )
    weight: float | None = option(None, "Take a random share of the rows, as `seed` has it.", newer=True, gt=0, le=1)


class FetchedDataset(DatasetSource):
    """An entry as fetch gets it: one of `datasets`, or of `pretraining_dataset`, which may skip rows."""

    skip: int | None = option(None, "Rows to leave out at the beginning.", ge=0)


class DatasetFormat(Group):
    """The part of a dataset entry that tokenize reads."""

    type: Annotated[str, Field(min_length=1)] | RowFormat | None = option(
        None,
        "How a row becomes tokens: chat_template, completion, alpaca or another name, your own dotted module, or a mapping of columns "
        "and texts. Not set: rows are ready (input_ids and labels; for preferences prompt, chosen and rejected).",
    )
    field: str = option("text", "completion, pretrain: the column that holds the text.")
    field_messages: str = option("messages", "chat_template: the column that holds the conversation.")
    message_property_mappings: dict[str, str] | None = option(
        None, "chat_template: which key of a message holds its role, its content or another property; default role: role, content: content."
    )
    roles: dict[str, list[str]] | None = option(
        None,
        "chat_template: role names of the template, each with the names the data uses. Replaces the default map.",
        min_length=1,
    )
    roles_to_train: list[str] | None = option(None, "chat_template: roles whose turns are trained; default [assistant].")
    train_on_eos: Literal["turn", "all", "last", "none"] | None = option(
        None,
        "chat_template: after which turns the end-of-sequence token is trained: trained turns (turn, the default), all turns, the last "
        "trained turn, none.",
    )
    train_on_eot: Literal["turn", "all", "last", "none"] | None = option(
        None, "chat_template: the same for the tokens of eot_tokens; default as train_on_eos.", newer=True
    )
    chat_template: TemplateChoice | None = option(
        None,
        "chat_template: a template for this dataset alone: a built-in one by name, tokenizer_default, tokenizer_default_fallback_NAME, "
        "or `jinja` for chat_template_jinja.",
    )
    chat_template_jinja: str | None = option(
        None,
        "chat_template: a template for this dataset alone, as Jinja text or a file; implies chat_template: jinja.",
        min_length=1,
    )
    message_field_role: str | None = renamed("message_property_mappings.role")
    message_field_content: str | None = renamed("message_property_mappings.content")
    message_field_training: str | None = option(
        None, "chat_template: key of a message that says whether its turn is trained, whatever its role.", min_length=1
    )
    message_field_training_detail: str | None = option(
        None,
        "chat_template: key of a message with spans of its content: begin_offset, end_offset (characters, the end included), train.",
        min_length=1,
    )
    drop_system_message: bool = option(False, "chat_template: leave out a leading system turn.")
    field_tools: str = option("tools", "chat_template: the column that holds tool descriptions.", min_length=1)
    field_thinking: str = option("reasoning_content", "chat_template: key of a message that holds its reasoning.", min_length=1)
    template_thinking_key: str = option("reasoning_content", "chat_template: the template's name for reasoning.", min_length=1)
    split_thinking: bool = option(False, "chat_template: cut tagged reasoning out of an answer and give it to the template as such.")
    conversation: Literal["instruct", "chat", "chatml", "phi"] | None = option(None, "alpaca_chat: prompt style; default chat.")
    input_transform: Literal["chat"] | None = option(None, "messages: how the rows are read; there is one way.")
    input_format: str | None = refused("In Axolotl: without effect.", "nothing reads it")
    field_human: str | None = refused("Left from the removed sharegpt format.", "nothing reads it", "map roles with `roles`")
    field_model: str | None = refused("Left from the removed sharegpt format.", "nothing reads it", "map roles with `roles`")
    field_chosen: str | None = option(None, "Pairs with chat_template: the column of the better answer; default chosen.", min_length=1)
    field_rejected: str | None = option(None, "Pairs with chat_template: the column of the worse answer; default rejected.", min_length=1)
    step_separator: str = option("\n", "stepwise_supervised: text after each step, whose last token carries the label.", min_length=1)
    max_completion_length: int | None = option(None, "stepwise_supervised: longest completion, in tokens; the rest is cut off.", ge=1)
    train_on_last_step_only: bool = option(False, "stepwise_supervised: label only the last step.")
    logprobs_field: str | None = not_yet("Distillation: the column that holds the teacher's log probabilities.")
    temperature: float | None = not_yet("Distillation: the teacher's temperature.", idle=(1,), gt=0)


class DatasetEntry(DatasetSource, DatasetFormat):
    """A whole entry of `datasets` or `test_datasets`."""

    model_config = ConfigDict(extra="forbid")


class DatasetSources(Group):
    """Both lists, as fetch sees them."""

    datasets: list[FetchedDataset] = option(..., "What to train on.", min_length=1)
    test_datasets: list[FetchedDataset] | None = option(None, "What to evaluate on, instead of a split.", min_length=1)


class RowSelection(Group):
    """What `seed`, `max_steps` and the batch mean for fetch. Never given: see :mod:`pipeline.options.defaults`."""

    rows_seed: int | None = option(None, "Which random part `shards` and `weight` take.")
    stream_bytes: int | None = option(None, "Rows of a streamed dataset that a run can train at most, in bytes.")
    stream_row_bytes: int | None = option(None, "Bytes that one row counts for at most.")


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


class TokenizeGroup(Nested):
    """Options of the tokenize stage that Axolotl has no key for."""

    strict: bool = option(False, "Fail when a row cannot be used, instead of leaving it out, counted and listed.")


class Strictness(Group):
    """Read by tokenize."""

    tokenize: TokenizeGroup = option(TokenizeGroup(), "Options of the tokenize stage.")
