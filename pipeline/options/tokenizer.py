"""The tokenizer, its special tokens and chat template, and the embeddings that must follow it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints

from pipeline.options.schema import Group, Nested, not_yet, option, refused

TemplateName = Literal[
    "tokenizer_default",
    "jinja",
    "alpaca",
    "aya",
    "chatml",
    "cohere",
    "command_a",
    "command_a_rag",
    "command_a_tool_use",
    "deepseek_v2",
    "deepseek_v3",
    "exaone",
    "exaone4",
    "falcon_h1",
    "gemma",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4_unified",
    "jamba",
    "llama3",
    "llama3_2_vision",
    "llama4",
    "llava",
    "metharme",
    "mistral_v1",
    "mistral_v2v3",
    "mistral_v3_tekken",
    "mistral_v7_tekken",
    "nemotron_h",
    "phi_3",
    "phi_35",
    "phi_4",
    "pixtral",
    "qwen2_vl",
    "qwen3",
    "qwen3_5",
    "qwen_25",
]
"""Choices of a chat template; besides the first two, the names of :mod:`pipeline.chat_templates`."""

FALLBACK = "tokenizer_default_fallback_"
"""Before a built-in template's name: the tokenizer's own template, and that one where it has none."""

_FALLBACKS = f"^{FALLBACK}({'|'.join(get_args(TemplateName)[2:])})$"

TemplateChoice = TemplateName | Annotated[str, StringConstraints(pattern=_FALLBACKS)]
"""What ``chat_template`` may be."""


class SpecialTokens(Nested):
    """Special tokens to set on the tokenizer; added to the vocabulary where it does not have them."""

    bos_token: str | None = option(None, "Beginning of sequence.", min_length=1)
    eos_token: str | None = option(None, "End of sequence; ends a trained turn.", min_length=1)
    pad_token: str | None = option(None, "Padding.", min_length=1)
    unk_token: str | None = option(None, "Unknown token.", min_length=1)
    additional_special_tokens: list[str] | None = option(None, "Further special tokens, added after all other new tokens.")


class TokenizerSource(Group):
    """How ``data/tokenizer`` is made: exactly what training and inference will use. Read by fetch."""

    tokenizer_config: str | None = option(None, "Where the tokenizer comes from, when not from base_model.", min_length=1)
    added_tokens_overrides: dict[int, str] | None = option(
        None, "New text for added tokens that nothing uses, by token id: {5: <|note|>}. Needs no new embedding row."
    )
    special_tokens: SpecialTokens | None = option(None, "Special tokens to set.")
    tokens: list[str] | None = option(None, "Ordinary tokens to add to the vocabulary.")
    chat_template: TemplateChoice | None = option(
        None,
        "The chat template saved with the tokenizer: its own (tokenizer_default), a built-in one by name, its own or else a built-in one "
        "(tokenizer_default_fallback_NAME), or `jinja` for chat_template_jinja.",
    )
    chat_template_jinja: str | None = option(
        None, "A chat template as Jinja text, or the path of a file that holds it; implies chat_template: jinja.", min_length=1
    )
    default_system_message: str | None = option(
        None, "With chat_template: chatml, the system message of conversations that do not begin with one.", min_length=1
    )
    tokenizer_save_jinja_files: bool = option(True, "Save the chat template as a file of its own, not inside tokenizer_config.json.")
    tokenizer_type: str | None = refused(
        "Name of the tokenizer class.",
        "the tokenizer is what its tokenizer.json says, and a class of another name may build it anew from its own code",
        idle=("AutoTokenizer", "PreTrainedTokenizerFast"),
    )
    tokenizer_use_fast: bool | None = refused(
        "Take the fast tokenizer.",
        "masks are made from the character offsets that only fast tokenizers give",
        "remove it; a model without tokenizer.json needs tokenizer_config naming a source that has one",
        idle=(True,),
    )
    tokenizer_legacy: bool | None = refused(
        "Old handling of spaces after special tokens.",
        "tokenizer.json says how spaces are handled, and this would not change it",
        "remove it, or name a tokenizer.json made the other way in tokenizer_config",
        idle=(),
    )
    tokenizer_use_mistral_common: bool | None = refused(
        "Tokenize with mistral-common.",
        "rows, masks and inference go by one tokenizer.json, and mistral-common has none",
        "remove it, and name the format in chat_template: mistral_v1, mistral_v2v3, mistral_v3_tekken or mistral_v7_tekken",
    )


class ChatRendering(Group):
    """How the template is applied to rows. Read by tokenize."""

    chat_template_kwargs: dict[str, Any] | None = option(None, "Variables for every rendering of the chat template.")
    eot_tokens: list[Annotated[str, Field(min_length=1)]] | None = option(
        None, "Tokens that end a turn besides the end-of-sequence token; each is one token. See train_on_eot of a dataset."
    )


class Embeddings(Group):
    """How the embedding matrix follows the tokenizer. Read by train."""

    resize_token_embeddings_to_32x: bool = option(False, "Round the number of embedding rows up to a multiple of 32.")
    mean_resizing_embeddings: bool = option(False, "Start new embedding rows around the mean of the old ones, not at random.")
    shrink_embeddings: bool = option(False, "Drop embedding rows beyond the tokenizer's length.")
    embeddings_skip_upcast: bool | None = not_yet("Keep embeddings in low precision when an adapter is trained.")
    fix_untrained_tokens: bool | int | list[int] | None = option(
        None, "Token ids whose embedding rows are set to the mean of all others; true: those whose rows are all zeros."
    )
