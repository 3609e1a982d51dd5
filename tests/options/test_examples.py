"""Configs as Axolotl's users write them, one for each kind of training: what does not work is told line by line.

A line that is refused ends in a comment: `not yet`, `refused` (for good) or `unknown` (no option). Nothing else may be told.
A type that means something only beside such a line says beside which: `with rl`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from tests.options.configs import PROBLEM

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.yaml"))
SAYS = {"not yet": "not yet supported", "refused": "refused: ", "unknown": "no such option"}


def test_there_is_one_for_each_kind() -> None:
    assert {path.stem for path in EXAMPLES} >= set(
        [
            "full",
            "lora",
            "qlora",
            "dpo",
            "kto",
            "orpo",
            "grpo",
            "reward_model",
            "process_reward_model",
            "pretraining",
            "qat",
            "fsdp2",
            "deepspeed",
            "multimodal",
        ]
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_does_not_work_is_told_line_by_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    marks = [(number, re.search(r"# (not yet|refused|unknown)$", line)) for number, line in enumerate(text.splitlines(), 1)]
    expected = {number: mark[1] for number, mark in marks if mark}
    if not expected:
        check_source(parse(text, "params.yaml"))
        return
    with pytest.raises(RegrowError) as caught:
        check_source(parse(text, "params.yaml"))
    told = [PROBLEM.fullmatch(line) for line in str(caught.value).splitlines()]
    assert all(told), str(caught.value)
    assert {int(match["line"]) for match in told if match} == expected.keys()
    assert all(SAYS[expected[int(match["line"])]] in match["rest"] for match in told if match), str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_without_these_lines_it_works(path: Path) -> None:
    """Dropping exactly the marked keys, and what stands inside them, leaves a config that runs."""
    kept: list[str] = []
    inside: int | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        depth = len(line) - len(line.lstrip())
        inside = inside if inside is not None and (depth > inside or (line.lstrip().startswith("- ") and depth == inside)) else None
        marked = re.search(r"# (not yet|refused|unknown)$", line) and not line.lstrip().startswith("type:")
        inside = depth if marked else inside
        if inside is None:
            kept.append(re.sub(r"^(\s+type:).*# .*", r"\1 own.rows", line))
    text = "\n".join(kept) + "\n"
    text += "" if "datasets:" in text or "pretraining_dataset:" in text else "datasets: [{path: a.jsonl, type: completion}]\n"
    check_source(parse(re.sub(r"type: own.rows\n(\s{6}.*\n)+", "type: own.rows\n", text), "params.yaml"))
