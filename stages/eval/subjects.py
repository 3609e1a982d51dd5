"""The models that are judged: where their weights are, how large, how they are opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.models import load_causal_lm, quiet_libraries

GGUF_FILE = "model.gguf"
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Subject:
    """One model to judge.

    Attributes:
        name: ``base``, ``merged``, or a format of data/quantized.
        folder: a Hugging Face directory, or one that holds ``model.gguf``.
        size: bytes of its weight files.
    """

    name: str
    folder: Path
    size: int


def find_subjects(inputs: Mapping[str, Artifact]) -> list[Subject]:
    """base, merged, then each folder of data/quantized by name."""
    quantized = inputs["quantized"]
    formats = sorted({Path(file).parts[0] for file in quantized.files if "/" in file})
    return [_subject("base", inputs["base"]), _subject("merged", inputs["merged"]), *(_subject(name, quantized, name) for name in formats)]


def _subject(name: str, artifact: Artifact, folder: str = "") -> Subject:
    inside = f"{folder}/" if folder else ""
    files = artifact.files.items()
    size = sum(record["size"] for file, record in files if file.startswith(inside) and file.endswith(_WEIGHTS))
    return Subject(name, artifact.path / folder, size)


def open_subject(subject: Subject) -> Any:
    """The model in float32 and evaluation mode, on the first GPU where there is one.

    A GGUF file is dequantised while it is read, which leaves the numbers that its quantisation kept.
    """
    quiet_libraries()
    import torch

    model = _open_gguf(subject.folder) if (subject.folder / GGUF_FILE).exists() else _open_folder(subject)
    return model.to("cuda") if torch.cuda.is_available() else model


def _open_folder(subject: Subject) -> Any:
    if subject.name == "int8":
        import torchao  # noqa: F401  transformers opens with it; named here, its version is part of the stage's identity
    return load_causal_lm(subject.folder)


def _open_gguf(folder: Path) -> Any:
    import gguf  # noqa: F401  as above
    import torch
    from transformers import AutoModelForCausalLM

    with _quiet_stderr():
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=torch.float32, attn_implementation="sdpa")


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """transformers 5.23 draws a bar while it reads GGUF that its own switch for bars does not reach. Warnings come through."""
    held = StringIO()
    with redirect_stderr(held):
        yield
    lines = (line for line in held.getvalue().splitlines() if line.strip() and "de-quantizing" not in line)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
