"""The tokenizer, its special tokens and chat template, and the embeddings that must follow it."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.options.schema import Group, Nested, not_yet, option

TEMPLATES_TO_COME = (
    *("alpaca", "aya", "cohere", "command_a", "command_a_rag", "command_a_tool_use", "deepseek_v2", "deepseek_v3", "exaone", "exaone4"),
    *(
        "falcon_h1",
        "gemma",
        "gemma3",
        "gemma3n",
        "granite",
        "granitemoe",
        "jamba",
        "llama3",
        "llama3_2_vision",
        "llama4",
        "llava",
        "metharme",
    ),
    *("mistral_v1", "mistral_v2v3", "mistral_v3_tekken", "mistral_v7_tekken", "olmo3", "phi_3", "phi_35", "phi_4", "pixtral", "qwen_25"),
    *("qwen2_vl", "qwen3", "qwen3_5", "tokenizer_default_fallback_*"),
)
"""Names of chat templates that come with Axolotl."""


class SpecialTokens(Nested):
    """Special tokens to set on the tokenizer; each must be a token it has."""

    bos_token: str | None = option(None, "Beginning of sequence.")
    eos_token: str | None = option(None, "End of sequence; ends a trained turn.")
    pad_token: str | None = option(None, "Padding.")
    unk_token: str | None = option(None, "Unknown token.")
    additional_special_tokens: list[str] | None = not_yet("Further special tokens, added last.", idle=([],))


class TokenizerSource(Group):
    """How ``data/tokenizer`` is made: exactly what training and inference will use. Read by fetch."""

    tokenizer_config: str | None = option(None, "Where the tokenizer comes from, when not from base_model.", min_length=1)
    special_tokens: SpecialTokens | None = option(None, "Special tokens to set.")
    chat_template: Literal["tokenizer_default", "chatml", "jinja"] | None = option(
        None,
        "The chat template saved with the tokenizer: its own, a built-in one by name, or `jinja` for chat_template_jinja.",
        later=TEMPLATES_TO_COME,
    )
    chat_template_jinja: str | None = option(None, "A chat template as Jinja text; implies chat_template: jinja.", min_length=1)
    tokens: list[str] | None = not_yet("Ordinary tokens to add to the vocabulary.", idle=([],))
    added_tokens_overrides: dict[int, str] | None = not_yet("New text for reserved tokens, by token id.", idle=({},))
    tokenizer_type: str | None = not_yet("Name of the tokenizer class; default AutoTokenizer.", idle=("AutoTokenizer",))
    tokenizer_use_fast: bool | None = not_yet("Take the fast tokenizer, as regrow always does.", idle=(True,))
    tokenizer_legacy: bool | None = not_yet("Old handling of spaces after special tokens, in tokenizers that have both.", idle=())
    tokenizer_use_mistral_common: bool | None = not_yet("Tokenize with mistral-common.", needs="mistral-common")
    tokenizer_save_jinja_files: bool | None = not_yet("Save the chat template as a file of its own, as regrow does.", True, idle=())
    default_system_message: str | None = not_yet("System message that the chatml template adds when a conversation has none.")


class ChatRendering(Group):
    """How the template is applied to rows. Read by tokenize."""

    chat_template_kwargs: dict[str, Any] | None = not_yet("Variables for every rendering of the chat template.", idle=({},))
    eot_tokens: list[str] | None = not_yet("Tokens that end a turn besides the end-of-sequence token.", idle=([],))
    train_on_eot: Literal["turn", "all", "last", "none"] | None = not_yet(
        "Which of eot_tokens are trained; default as train_on_eos.", idle=(), newer=True
    )


class Embeddings(Group):
    """How the embedding matrix follows the tokenizer. Read by train."""

    resize_token_embeddings_to_32x: bool | None = not_yet("Round the number of embedding rows up to a multiple of 32.")
    mean_resizing_embeddings: bool | None = not_yet("Start new embedding rows at the mean of the old ones.", False)
    shrink_embeddings: bool | None = not_yet("Drop embedding rows beyond the tokenizer's length.")
    embeddings_skip_upcast: bool | None = not_yet("Keep embeddings in low precision when an adapter is trained.")
    fix_untrained_tokens: int | list[int] | None = not_yet(
        "Token ids whose embedding rows are set to the mean of the trained ones.", idle=([],)
    )
