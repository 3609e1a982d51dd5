"""The model card goes on with the model; of a merged adapter it says that it is merged."""

from __future__ import annotations

from pathlib import Path

CARD = "README.md"
_HEADER = {"library_name: peft": "library_name: transformers", "base_model_relation: adapter": "base_model_relation: finetune"}
_TITLE = ("# Adapter for ", "# Fine-tuned ")


def copy_card(trained: Path, destination: Path, *, merged: bool) -> None:
    """Copy the card of ``trained`` if it has one; with ``merged``, as that of a whole model."""
    path = trained / CARD
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        (destination / CARD).write_text(_of_whole_model(text) if merged else text, encoding="utf-8")


def _of_whole_model(card: str) -> str:
    before, *header_and_body = card.split("---\n", 2)
    if before or len(header_and_body) != 2:
        return card
    header, body = header_and_body
    lines = "".join(f"{_HEADER.get(line, line)}\n" for line in header.splitlines())
    title, _, rest = body.lstrip("\n").partition("\n")
    merged = "The adapter that the following describes is merged into the weights."
    return f"---\n{lines}---\n\n{title.replace(*_TITLE)}\n\n{merged}\n{rest}"
