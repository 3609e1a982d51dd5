"""The chat template saved with the tokenizer: its own, a built-in one by name, or the recipe's own text."""

from __future__ import annotations

from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.tokenizer import TokenizerSource

# Python text and not a file, so that a change of it is a change of the stage's code digest.
CHATML = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)
"""ChatML as OpenAI described it: role and content between markers, no default system prompt."""

_BUILT_IN = {"chatml": CHATML}


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
            "Set chat_template: chatml, or jinja with your own.",
        )
    return own if name is None else _BUILT_IN.get(name, own)


def _compiled(text: str) -> str:
    """``text``, if the sandbox in which transformers renders templates compiles it."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template([], chat_template=text)  # compiles, and renders nothing
    except TemplateError as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise RegrowError(
            f"chat_template_jinja is not a Jinja template{line}: {error}.",
            "Correct the text; it gets `messages` and `add_generation_prompt`.",
        ) from None
    return text
