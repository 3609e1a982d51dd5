"""The chat template saved with the tokenizer: its own, a built-in one by name, or the recipe's own text."""

from __future__ import annotations

import json
from typing import Any

from pipeline.bounded import Bounded
from pipeline.chat_templates import NAMES, built_in
from pipeline.errors import RegrowError
from pipeline.options.tokenizer import FALLBACK, TokenizerSource


def choose_template(options: TokenizerSource, own: Any) -> Any:
    """The template to save; ``own`` is what the tokenizer came with (None, a text, or texts by name).

    Raises:
        RegrowError: the options contradict each other, the tokenizer has none, or the text is not a template.
    """
    name, text = options.chat_template, options.chat_template_jinja
    if text is not None:
        if name not in (None, "jinja"):
            raise RegrowError(
                f"chat_template is {name!r}, but chat_template_jinja is given too.",
                "Set chat_template: jinja, or remove chat_template_jinja.",
            )
        return _compiled(text)
    if name == "jinja":
        raise RegrowError(
            "chat_template is 'jinja', but chat_template_jinja is not set.", "Put the template's text in chat_template_jinja."
        )
    if name == "tokenizer_default" and not own:
        raise RegrowError(
            "chat_template is 'tokenizer_default', but the tokenizer has no chat template.",
            f"Name a built-in one ({', '.join(NAMES)}), or set jinja with your own.",
        )
    if name in (None, "tokenizer_default"):
        return own
    return (own if name.startswith(FALLBACK) else None) or _named(name.removeprefix(FALLBACK), options.default_system_message)


def _named(name: str, system_message: str | None) -> str:
    """A built-in template; ``system_message`` (for chatml) becomes a variable that is set in its first line."""
    if system_message is None:
        return built_in(name)
    # JSON's escapes mean the same in a Jinja string, as long as characters outside ASCII stand for themselves.
    return f"{{%- set default_system_message = {json.dumps(system_message, ensure_ascii=False)} %}}\n{built_in(name)}"


def _compiled(text: str) -> str:
    """``text``, if the sandbox in which transformers renders templates compiles it."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        with Bounded("chat_template_jinja"):
            render_jinja_template([], chat_template=text)  # compiles, which computes constants, and renders nothing
    except (TemplateError, RecursionError, SyntaxError, ValueError, OverflowError) as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise RegrowError(
            f"chat_template_jinja is not a Jinja template{line}: {error}.",
            "Correct the text; it gets `messages` and `add_generation_prompt`.",
        ) from None
    return text
