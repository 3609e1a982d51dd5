"""Chat templates: compiled once in Jinja's sandbox, rendered with every string's place in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.bounded import Bounded
from pipeline.chat_tags import Generation
from pipeline.errors import RegrowError
from stages.tokenize.example import BadRow
from stages.tokenize.traced import Traced, join_between, join_traced


class _TracingGenerator(CodeGenerator):
    """Joins ``a ~ b`` the way output is joined."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  the visitor's name for the node
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _TracingEnvironment(ImmutableSandboxedEnvironment):
    """The environment transformers renders chat templates in, joining output without losing where text came from."""

    code_generator_class = _TracingGenerator
    concat = staticmethod(join_traced)
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Products and powers, unless what comes out would be longer than any row: that must not depend on the memory there is."""
        if _is_too_large(operator, left, right):
            raise jinja2.TemplateError(f"a value of {operator} is too large")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As the sandbox does, but without its checks where they have nothing to find: they are half of a rendering's time."""
        kind = type(obj)
        if kind is dict:
            if attribute in obj and attribute not in _DICT:
                return obj[attribute]
        elif (kind is Traced and attribute in _TEXT) or (kind in _STATES and attribute[0] != "_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


_LARGEST = 2**28
"""Characters of a text, items of a list, bits of a number that ``*`` and ``**`` may make."""


def _is_too_large(operator: str, left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * right > _LARGEST if operator == "**" else left.bit_length() + right.bit_length() > _LARGEST
    times, repeated = (left, right) if isinstance(left, int) else (right, left)
    return isinstance(times, int) and isinstance(repeated, str | bytes | list | tuple) and len(repeated) * times > _LARGEST


_DICT = frozenset(dir(dict))
_STATES = (jinja2.utils.Namespace, jinja2.runtime.LoopContext)
_TEXT = frozenset({"strip", "lstrip", "rstrip", "split", "startswith", "endswith"})


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _no_clock(_: str) -> NoReturn:
    raise RegrowError(
        "The chat template prints today's date (strftime_now): the tokens would differ from day to day.",
        "Give every conversation a system turn that makes the template skip it, or set chat_template_jinja without the date.",
    )


def _no_chance(*_: Any, **__: Any) -> NoReturn:
    raise RegrowError("The chat template asks for chance (random, lipsum): the tokens would differ from run to run.", "Take it out.")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, values: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        values = (environment.getitem(value, attribute) for value in values)
    return join_between(separator, values)


# What an expression of a template can raise on one row's values: 1 / 0, range(10**9), [][0], a macro without end.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    AttributeError,
    LookupError,
    ValueError,
    ArithmeticError,
    RecursionError,
)

# What compiling it can raise besides: parentheses or blocks nested too deep, a number of too many digits.
_COMPILE_ERRORS = (RecursionError, SyntaxError, ValueError, OverflowError)

_ASKS_FOR_NONE = re.compile(r"content(['\"]\]|['\"]\))? is (not )?none")


class ChatTemplate:
    """A compiled chat template, the special tokens it may print and the variables that every rendering gets.

    Attributes:
        text: the Jinja text.
        words: names that occur in it; a key of a message that is none of them cannot change what is printed.
        knows_null: it asks whether a content is none. Other templates would print the word None.

    Raises:
        RegrowError: the text is not a valid template.
    """

    def __init__(self, text: str, special_tokens: Mapping[str, str], variables: Mapping[str, Any] | None = None) -> None:
        environment = _TracingEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        environment.filters.update(tojson=_tojson, join=_join, random=_no_chance)
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_no_clock, lipsum=_no_chance)
        self._bounded = Bounded("The chat template")
        try:
            with self._bounded:  # values of constants are computed when it is compiled
                self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise RegrowError(f"The chat template is not valid Jinja (line {error.lineno}): {error.message}.") from None
        except _COMPILE_ERRORS as error:
            raise RegrowError(f"The chat template cannot be compiled: {error}.", "Use another, or nest less in it.") from None
        self.text = text
        self.words = frozenset(re.findall(r"\w+", text))
        self.knows_null = _ASKS_FOR_NONE.search(text) is not None
        self._variables = {"tools": None, "documents": None, "add_generation_prompt": False, **special_tokens, **(variables or {})}

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None, *, add_generation_prompt: bool | None = None
    ) -> Traced:
        """The conversation as one text that knows which characters come from which message.

        Contents that are plain text are traced here; others, and reasoning, where they were made into :class:`Traced`.
        ``add_generation_prompt``: as the variables say where it is not given, which is mostly not.

        Raises:
            BadRow: the template refuses the conversation.
            RegrowError: it takes more time or memory than any template should.
        """
        values = {**self._variables, "messages": _traced(messages)}
        if add_generation_prompt is not None:
            values["add_generation_prompt"] = add_generation_prompt
        if tools:
            values["tools"] = tools
        try:
            with self._bounded:
                return join_traced(self._template.root_render_func(self._template.new_context(values)))
        except _RENDER_ERRORS as error:
            raise BadRow(f"the chat template refuses it: {str(error) or type(error).__name__}") from None


def _traced(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Contents that are not traced yet are those of their turn."""
    return [
        {**message, "content": Traced.whole(message["content"], turn)} if type(message.get("content")) is str else message
        for turn, message in enumerate(messages)
    ]
