"""Chat templates: compiled once in Jinja's sandbox, rendered once per conversation with every turn's place in the text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.chat_tags import Generation
from pipeline.errors import RegrowError
from stages.tokenize.example import BadRow
from stages.tokenize.traced import Traced, join_traced


class _TracingEnvironment(ImmutableSandboxedEnvironment):
    """The environment transformers renders chat templates in, joining output without losing where text came from."""

    concat = staticmethod(join_traced)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _no_clock(_: str) -> NoReturn:
    raise RegrowError(
        "The chat template prints today's date (strftime_now): the tokens would differ from day to day.",
        "Give every conversation a system turn that makes the template skip it, or set chat_template_jinja without the date.",
    )


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


# What an expression of a template can raise on one row's values: 1 / 0, range(10**9), [][0], 'a' * 10**15, a macro without end.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    AttributeError,
    LookupError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


class ChatTemplate:
    """A compiled chat template and the special tokens it may print.

    Raises:
        RegrowError: the text is not a valid template.
    """

    def __init__(self, text: str, special_tokens: Mapping[str, str]) -> None:
        environment = _TracingEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_no_clock)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise RegrowError(f"The chat template is not valid Jinja (line {error.lineno}): {error.message}.") from None
        # `a ~ b` is compiled to a call of this name; jinja2 offers no hook for it, and its own loses the origin.
        self._template.root_render_func.__globals__["str_join"] = join_traced
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> Traced:
        """The conversation as one text that knows which characters are which message's content.

        Raises:
            BadRow: the template refuses the conversation.
        """
        traced = [message | {"content": Traced.content(message["content"], turn)} for turn, message in enumerate(map(dict, messages))]
        try:
            context = self._template.new_context({"messages": traced, "add_generation_prompt": False, **self._special_tokens})
            return join_traced(self._template.root_render_func(context))
        except _RENDER_ERRORS as error:
            raise BadRow(f"the chat template refuses it: {str(error) or type(error).__name__}") from None
