"""The models that are judged: where their weights are, how large, what identifies them, and when they are in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.digest import digest_json
from pipeline.model_folder import open_model

_WEIGHTS = (".safetensors", ".gguf")
_TEXTS = (".md", ".txt", "LICENSE", "NOTICE")


@dataclass(frozen=True)
class Subject:
    """One model to judge.

    Attributes:
        name: ``base``, ``merged``, or a format of data/quantized.
        folder: a Hugging Face directory, or one that holds a GGUF file.
        size: bytes of its weight files.
        digest: SHA-256 (hex) of its files by their names, but for those that are written for people.
        bits_per_weight: as quantize counted them; None of what it did not write.
    """

    name: str
    folder: Path
    size: int
    digest: str
    bits_per_weight: float | None = None


def find_subjects(inputs: Mapping[str, Artifact]) -> list[Subject]:
    """base, merged, then each folder of data/quantized by name."""
    quantized = inputs["quantized"]
    formats = sorted({Path(file).parts[0] for file in quantized.files if "/" in file})
    return [_subject("base", inputs["base"]), _subject("merged", inputs["merged"]), *(_subject(name, quantized, name) for name in formats)]


def _subject(name: str, artifact: Artifact, folder: str = "") -> Subject:
    inside = f"{folder}/" if folder else ""
    files = {file.removeprefix(inside): record for file, record in artifact.files.items() if file.startswith(inside)}
    size = sum(record["size"] for file, record in files.items() if file.endswith(_WEIGHTS))
    read = {file: record["sha256"] for file, record in files.items() if not file.endswith(_TEXTS)}
    facts = artifact.content.get("formats", {}).get(folder, {})
    return Subject(name, artifact.path / folder, size, digest_json(read), facts.get("bits_per_weight"))


class OpenSubject:
    """A subject whose weights are read when they are first asked for."""

    def __init__(self, subject: Subject) -> None:
        self.name, self.folder = subject.name, subject.folder
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model in float32 and evaluation mode, on the first GPU where there is one."""
        if self._model is None:
            self._model = open_model(self.folder)
        return self._model

    def close(self) -> None:
        """Free the memory. A model holds itself in cycles."""
        if self._model is not None:
            self._model = None
            gc.collect()


@contextmanager
def opened(subject: Subject) -> Iterator[OpenSubject]:
    """The subject for the time of a block; the next one needs its memory."""
    holder = OpenSubject(subject)
    try:
        yield holder
    finally:
        holder.close()
