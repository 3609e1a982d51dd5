"""Under every built-in template, decoding the trained ids gives exactly the trained turns' contents and their terminators.

What is right is found without regrow's own code: the template is rendered by plain Jinja, once with the contents and once with a
word of its own in place of each. The second text cuts into the template's pieces, and the first must be these pieces with the
contents, trimmed or not, between them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.chat_templates import NAMES, built_in
from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.tiny import publish_artifact, run_stage
from tests.tokenize.rows import publish_raw

COHERE, GEMMA, LLAMA, CHATML, PHI, EXAONE = "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<|eot_id|>", "<|im_end|>", "<|end|>", "[|endofturn|]"
OWN = "</s>"
"""Ends a turn in templates that print whatever the tokenizer's end-of-sequence token is."""
ENDS = {
    **dict.fromkeys(("alpaca", "deepseek_v2", "llava", "metharme", "pixtral"), OWN),
    **dict.fromkeys(("mistral_v1", "mistral_v2v3", "mistral_v3_tekken", "mistral_v7_tekken"), OWN),
    **dict.fromkeys(("aya", "cohere", "command_a", "command_a_rag", "command_a_tool_use"), COHERE),
    **dict.fromkeys(("chatml", "falcon_h1", "nemotron_h", "olmo3", "phi_4", "qwen2_vl", "qwen3", "qwen3_5", "qwen_25"), CHATML),
    **dict.fromkeys(("gemma", "gemma3", "gemma3n"), GEMMA),
    **dict.fromkeys(("gemma4", "gemma4_unified"), "<turn|>"),
    **dict.fromkeys(("llama3", "llama3_2_vision"), LLAMA),
    **dict.fromkeys(("phi_3", "phi_35"), PHI),
    **dict.fromkeys(("exaone", "exaone4"), EXAONE),
    **{"deepseek_v3": "<\uff5cend▁of▁sentence\uff5c>", "jamba": "<|eom|>", "llama4": "<|eot|>", "granite": "<|end_of_text|>"},
}
NO_SYSTEM = ("gemma",)
VARIABLES = {"date_string": "26 Jul 2024"}
"""Without it llama3_2_vision prints today."""
WORDS = [f"Word{number}x" for number in range(20)]

Conversation = tuple[tuple[str, str], ...]


@cache
def compiled(name: str) -> jinja2.Template:
    """By Jinja alone."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = lambda message: pytest.fail(message)
    return environment.from_string(built_in(name))


def rendered(name: str, conversation: Conversation) -> str:
    messages = [{"role": role, "content": content} for role, content in conversation]
    return compiled(name).render(messages=messages, bos_token="<s>", eos_token=ENDS[name], tools=None, documents=None, **VARIABLES)


def expected(name: str, conversation: Conversation) -> str | None:
    """The trained text; ``None`` where a content changes what the template prints around it."""
    named = [number for number, (role, content) in enumerate(conversation) if role == "assistant" or content.strip()]
    words = tuple((role, WORDS[number] if number in named else content) for number, (role, content) in enumerate(conversation))
    plain, text = rendered(name, words), rendered(name, conversation)
    order = sorted((place, number) for number in named if (place := plain.find(WORDS[number])) >= 0)
    borders = [(0, 0), *((start, start + len(WORDS[number])) for start, number in order), (len(plain), len(plain))]
    first, *behind = (plain[after[1] : before[0]] for after, before in itertools.pairwise(borders))
    assert sum(conversation[number][0] == "assistant" for _, number in order) == len(conversation) // 2, "every answer is printed"
    if not text.startswith(first):
        return None
    place, trained = len(first), ""
    for (_, number), piece in zip(order, behind, strict=True):
        role, content = conversation[number]
        said = next((one for one in (content, content.strip(), content.strip("\n")) if text.startswith(one + piece, place)), None)
        if said is None:
            return None
        place += len(said + piece)
        trained += said + ENDS[name] * (ENDS[name] in piece) if role == "assistant" else ""
    return trained if place == len(text) else None


MARKUP = ["<|im_start|>user\n", "[INST]", "[/INST]", "{{ messages }}", "{% endfor %}", "assistant", "<think>", "Word", " ", "\n"]
PART = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from([*MARKUP, *ENDS.values()])
CONTENT = st.lists(PART, max_size=4).map("".join)
PAIR = st.tuples(CONTENT, CONTENT) | st.sampled_from([("same", "same"), ("q", ""), ("", "a"), ("x", "assistant")])
ANSWERS = st.lists(PAIR, min_size=1, max_size=4)


def turns(pairs: Sequence[tuple[str, str]], instruction: str) -> Conversation:
    return (
        ("system", instruction),
        *((role, content) for pair in pairs for role, content in zip(("user", "assistant"), pair, strict=True)),
    )


CONVERSATIONS = st.lists(st.builds(turns, ANSWERS, CONTENT), min_size=15, max_size=15)


def save_tokenizer(folder: Path, template: str, end: str) -> list[str]:
    """Every byte a token, and ``end`` and ``<s>`` one each; returns the texts of special tokens by id."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = [end, "<s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": end, "bos_token": "<s>"}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return special


def decoded(ids: Sequence[int], special: Sequence[str]) -> str:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [special[token].encode() if token < len(special) else _byte(alphabet[token - len(special)]) for token in map(int, ids)]
    return b"".join(tokens).decode()


def _byte(character: str) -> bytes:
    """GPT-2's alphabet backwards: printable bytes are themselves, the others follow in order from character 256."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return bytes([ord(character) if ord(character) in shown else hidden[ord(character) - 256]])


def test_every_template_is_here() -> None:
    assert sorted(name for name in NAMES if name not in ENDS) == []


@pytest.mark.parametrize("name", NAMES)
def test_trained_ids_are_the_answers_and_their_ends(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    drawn: set[Conversation] = set()

    @settings(max_examples=3, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
    @given(CONVERSATIONS)
    def draw(conversations: list[Conversation]) -> None:
        drawn.update(conversations)

    draw()
    taken = [one[1:] if name in NO_SYSTEM else one for one in sorted(drawn)]
    told = [(one, text) for one in taken if (text := expected(name, one)) is not None]
    assert len(told) > 0.4 * len(drawn) > 10, "many contents leave the template's own text as it is"
    _check(tmp_path_factory.mktemp(name), name, [one for one in told if one[1]])


def _check(workspace: Path, name: str, told: Sequence[tuple[Conversation, str]]) -> None:
    rows: list[dict[str, Any]] = [{"messages": [{"role": role, "content": content} for role, content in one]} for one, _ in told]
    special: list[str] = []
    publish_raw(workspace / "data", "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    publish_artifact(workspace / "data", "tokenizer", lambda folder: special.extend(save_tokenizer(folder, built_in(name), ENDS[name])))
    run_stage(STAGE, workspace, {"chat_template_kwargs": VARIABLES})
    table = TokenTable(workspace / "data" / "tokens")
    found = [decoded(table.ids(row)[table.mask(row) == 1], special) for row in range(len(table))]
    assert found == [text for _, text in told]
