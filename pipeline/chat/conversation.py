"""Answers of a model in a conversation, piece by piece as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.bounded import Bounded
from pipeline.errors import RegrowError

if TYPE_CHECKING:
    import torch

Messages = Sequence[Mapping[str, str]]
"""``role`` and ``content`` of each turn."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 takes the likeliest token; above, tokens are drawn, the more evenly the higher it is.
        seed: of the draws; the same conversation gets the same answers.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 42

    def changed(self, *, max_new_tokens: int | None, temperature: float | None) -> Sampling:
        """With what is given in place of its own."""
        longest = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        return Sampling(longest, self.temperature if temperature is None else temperature, self.seed)


class Conversation:
    """A model and the tokenizer with the chat template that it was trained with."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling) -> None:
        if tokenizer.chat_template is None:
            raise RegrowError("The tokenizer has no chat template, so a conversation has no form.", "Set chat_template in params.yaml.")
        self._model, self._tokenizer, self._sampling = model, tokenizer, sampling
        self._ends = _end_tokens(model, tokenizer)

    def reply(self, messages: Messages) -> Iterator[str]:
        """Pieces of the answer to ``messages``, whose last turn is the user's.

        Raises:
            RegrowError: the conversation is longer than the model can read, or the chat template refuses it.
        """
        ids = self._prompt(messages)
        new: list[int] = []
        told = 0
        for token in self._tokens(ids):
            new.append(token)
            text = self._tokenizer.decode(new, skip_special_tokens=True)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else the rest of a character is still to come
                yield text[told:]
                told = len(text)

    def _prompt(self, messages: Messages) -> list[int]:
        from jinja2 import TemplateError

        try:
            with Bounded("The chat template"):
                ids: list[int] = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError, SyntaxError) as error:
            raise RegrowError(
                f"The chat template refuses the conversation: {error or type(error).__name__}.",
                "Begin a new one with /new, or set chat_template in params.yaml.",
            ) from None
        return ids

    def _tokens(self, ids: list[int]) -> Iterator[int]:
        import torch

        room = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if room is not None and len(ids) >= room:
            raise RegrowError(f"The conversation has {len(ids)} tokens; the model reads {room}.", "Begin a new one with /new.")
        limit = self._sampling.max_new_tokens if room is None else min(self._sampling.max_new_tokens, room - len(ids))
        draws = torch.Generator().manual_seed(self._sampling.seed)
        past, step = None, torch.tensor([ids])
        for _ in range(limit):
            with torch.inference_mode():
                out = self._model(input_ids=step.to(self._model.device), past_key_values=past, use_cache=True)
            token = self._choose(out.logits[0, -1].float().cpu(), draws)
            if token in self._ends:
                return
            yield token
            past, step = out.past_key_values, torch.tensor([[token]])

    def _choose(self, logits: torch.Tensor, draws: torch.Generator) -> int:
        import torch

        if not self._sampling.temperature:
            return int(logits.argmax())
        return int(torch.multinomial(torch.softmax(logits / self._sampling.temperature, 0), 1, generator=draws))


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """What the tokenizer and the model's own settings say ends an answer."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return {token for token in (tokenizer.eos_token_id, *listed) if token is not None}
