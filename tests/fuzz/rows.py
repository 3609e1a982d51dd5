"""Rows: wrong values at every depth, for every dataset type. Each row is trained on, or counted and named with file, row and reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from pipeline.options.dataset_types import TYPES
from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.fuzz.damage import as_json, damaged, damaged_bytes, odd
from tests.fuzz.judge import Rows, Tried, judge
from tests.tiny import publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import publish_raw

PER_RUN = 100
"""Rows of one run."""

_CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
_RICH = [
    {"role": "user", "content": [{"type": "text", "text": "q"}]},
    {"role": "assistant", "content": "", "reasoning_content": "t", "tool_calls": [_CALL], "train": True},
    {"role": "tool", "content": "r", "tool_call_id": "1"},
    {"role": "assistant", "content": "a", "training": False, "train_detail": [{"begin_offset": 0, "end_offset": 0, "train": True}]},
]
_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}]
_SAYS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
_TWO = {"chosen": _CHAT[1:], "rejected": [_CHAT[1], {"role": "assistant", "content": "b"}]}

_PRINTS_MORE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
)

Setting = tuple[dict[str, Any], dict[str, Any], Any]
"""Options of the whole file, keys of the dataset entry, a row that is right."""


def settings() -> list[Setting]:
    """Every dataset type, by what is trained, with a row that it takes."""
    found: list[Setting] = []
    for kind, top in (("text", {}), ("pairs", {"rl": "dpo"}), ("feedback", {"rl": "kto"})):
        golden = json.loads((Path(__file__).parent.parent / "tokenize" / "golden_texts.json").read_text(encoding="utf-8"))
        found += [(top, {"type": item["type"]}, item["row"]) for item in golden[kind]]
    rich = {"messages": _RICH, "tools": _TOOLS}
    more = {"message_field_training": "training", "message_field_training_detail": "train_detail", "split_thinking": True}
    found += [
        ({}, {"type": "chat_template"}, {"messages": _CHAT}),
        ({}, {"type": "chat_template", "chat_template_jinja": _PRINTS_MORE, **more}, rich),
        ({}, {"type": "chat_template", "chat_template": "llama3", "train_on_eos": "all"}, rich),
        ({}, {"type": "chat_template", "chat_template": "chatml", "drop_system_message": True}, {"messages": as_json(_CHAT)}),
        (
            {},
            {"type": "chat_template", "field_messages": "conversations", "message_property_mappings": {"role": "from", "content": "value"}},
            {"conversations": _SAYS},
        ),
        ({}, {"type": "messages"}, {"messages": _CHAT}),
        ({}, {"type": "llama2_chat"}, {"conversations": _SAYS}),
        ({}, {"type": "completion", "field": "text"}, {"text": "to be"}),
        ({}, {"type": "pretrain", "field": "text"}, {"text": "to be"}),
        ({}, {"type": None}, {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 0], "labels": [-100, 6, 7]}),
        ({}, {"type": {"field_instruction": "a", "field_output": "b", "format": "{instruction} {input}"}}, {"a": "q", "b": "a"}),
        ({"rl": "dpo"}, {"type": None}, {"prompt": "q", "chosen": "a", "rejected": "b"}),
        ({"rl": "ipo"}, {"type": "chat_template.default"}, {"messages": _CHAT[:2], "chosen": _CHAT[2], "rejected": _CHAT[2]}),
        ({"rl": "simpo"}, {"type": "chat_template.argilla_chat"}, _TWO),
        ({"rl": "dpo"}, {"type": "zephyr.nectar"}, {"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}),
        ({"rl": "dpo"}, {"type": {"field_prompt": "p", "prompt_format": "{system}{prompt}"}}, {"p": "q", "chosen": "a", "rejected": "b"}),
        ({"rl": "dpo"}, {"type": "passthrough"}, _TWO),
        ({"rl": "orpo"}, {"type": "chat_template.argilla"}, _TWO),
        ({"rl": "orpo"}, {"type": "orpo.chat_template"}, _TWO),
        ({"rl": "kto"}, {"type": None}, {"prompt": "q", "completion": "a", "label": True}),
        ({"rl": "grpo"}, {"type": "chat_template"}, {"messages": _CHAT[:2], "answer": 7}),
        ({"rl": "grpo"}, {"type": None}, {"prompt": "q", "answer": {"x": [1]}}),
        ({"reward_model": True}, {"type": "bradley_terry.chat_template"}, {"system": "s", "input": "q", "chosen": "a", "rejected": "b"}),
        ({"process_reward_model": True}, {"type": "stepwise_supervised"}, {"prompt": "q", "completions": ["a", "b"], "labels": [True, 0]}),
    ]
    return found


def covered() -> set[str]:
    """Names of types that rows are made for."""
    return {str(entry["type"]).partition(":")[0] for _, entry, _ in settings()}


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """About ``count`` damaged rows."""
    known = settings()
    rng.shuffle(known)
    for number in range(max(1, count // PER_RUN)):
        top, entry, row = known[number % len(known)]
        lines = [as_json(row).encode(), *(line(row, rng) for _ in range(min(PER_RUN, count) - 1))]
        what = f"{top} {entry['type']}"
        workspace = folder / f"rows-{number}"
        yield judge("rows", what, lambda w=workspace, t=top, e=entry, ls=lines: tokenize(w, t, e, ls), len(lines) - 1)  # type: ignore[misc]


def line(row: Any, rng: Random) -> bytes:
    """One line of a rows file that holds a damaged row."""
    way = rng.random()
    if way < 0.7:
        return as_json(damaged(row, rng, rng.randint(1, 3))).encode()
    if way < 0.8:
        return damaged_bytes(as_json(row).encode(), rng).replace(b"\n", b" ")
    if way < 0.9:
        keys = ", ".join(f"{as_json(key)}: {as_json(rng.choice([row[key], odd(rng)]))}" for key in [*row, *row])
        return f"{{{keys}}}".encode()  # every key twice
    return rng.choice(
        [b"", b"  ", b"null", b"[1]", b"7", b'"text"', b"{}", b"\xff\xfe{", b"[" * 3000, b'{"a": ' + b"9" * 5000 + b"}", rng.randbytes(40)]
    )


def tokenize(workspace: Path, top: dict[str, Any], entry: dict[str, Any], lines: list[bytes]) -> Rows:
    """Tokenize the lines; every one that is not blank is used or named, none both, none twice."""
    lines = [text.replace(b"\n", b" ").replace(b"\r", b" ") for text in lines]
    publish_raw(workspace / "data", "rows.jsonl", b"\n".join(lines) + b"\n")
    publish_artifact(workspace / "data", "tokenizer", save_tokenizer)
    cache = workspace.parent / "cache"
    artifacts, metrics = run_stage(STAGE, workspace, {**top, "datasets": [{"path": "rows.jsonl", **entry}]}, cache=cache)
    used = TokenTable(artifacts["tokens"].path).row.tolist()
    records = [json.loads(text) for text in (artifacts["tokens"].path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    for record in records:
        assert record["file"] == "rows.jsonl" and record["reason"].strip() and record["source"] == "train-00", record
    named = [record["row"] for record in records]
    wanted = [number for number, text in enumerate(lines) if text.strip()]
    assert sorted([*used, *named]) == wanted, sorted(set(wanted) ^ {*used, *named})
    assert metrics["rejected"] == len(named) == sum(artifacts["tokens"].content["sources"][0]["rejected"].values())
    return Rows(len(used), len(named))


def untested_types() -> set[str]:
    """Types that no rows are made for."""
    named = {name for names in TYPES.values() for name in names}
    return {name for name in named if not any(name == seen or name == seen.removesuffix(".load") for seen in covered())}
