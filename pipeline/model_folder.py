"""Opens any model that regrow writes, for use: a plain Hugging Face folder, a quantised one, or a GGUF file. Imports no torch by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.errors import MissingExtra, RegrowError
from pipeline.models import judges, load_causal_lm, load_judge, quiet_libraries

_LIBRARIES = {
    "gguf": ("gguf", "gguf"),
    "torchao": ("torchao", "int8"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    **dict.fromkeys(("auto-round", "gptq", "awq"), ("auto_round", "auto-round")),
}
"""How a model is quantised, as its config.json says → the package that opens it, and the extra of regrow that brings it."""


def open_model(path: Path) -> Any:
    """The model in float32 and evaluation mode, on the first GPU where there is one.

    Args:
        path: a Hugging Face folder, a folder with one GGUF file, or that file. GGUF is dequantised while it is read, which leaves
            the numbers that its quantisation kept.

    Raises:
        MissingExtra: the library that opens such a model is not installed.
        RegrowError: it is no model that can be opened.
    """
    quiet_libraries()
    import torch

    file = gguf_file(path)
    method = "gguf" if file is not None else _quantised_by(path)
    _require(method, path)
    model = _open_gguf(file) if file is not None else _open_folder(path, method)
    # bitsandbytes chooses the device itself, and lets no one move its weights.
    return model.to("cuda") if torch.cuda.is_available() and method != "bitsandbytes" else model


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that ``path`` is, or the only one that it holds beside no config.json."""
    if path.suffix == ".gguf":
        return path
    found = sorted(path.glob("*.gguf"))
    return found[0] if len(found) == 1 and not (path / "config.json").exists() else None


def _quantised_by(folder: Path) -> str | None:
    """The ``quant_method`` of a folder's config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RegrowError(f"{folder} holds neither config.json nor one GGUF file.", "Name a model's folder, or a .gguf file.") from None
    method: str | None = config.get("quantization_config", {}).get("quant_method")
    return method


def _require(method: str | None, path: Path) -> None:
    package, extra = _LIBRARIES.get(method or "", (None, ""))
    if package is not None and find_spec(package) is None:
        raise MissingExtra(f"To open {path}, regrow", package, extra)


def _open_folder(folder: Path, method: str | None) -> Any:
    if method == "torchao":
        import torchao  # noqa: F401  transformers opens with it; named here, its version is part of a stage's identity
    if method in ("gptq", "awq"):
        from transformers import AutoRoundConfig

        # AutoRound reads these layouts too; the packages that are called after them are not needed.
        return load_causal_lm(folder, quantization_config=AutoRoundConfig())
    kind = judges(folder)
    return load_causal_lm(folder) if kind is None else _open_judge(folder, kind)


def _open_judge(folder: Path, kind: str) -> Any:
    """A reward model, or one that judges steps, with the head that it was trained with."""
    import torch

    if kind.endswith("SequenceClassification"):
        return load_judge(folder, "SequenceClassification", 1, dtype=torch.float32, attn_implementation="sdpa").eval()
    return load_judge(folder, "TokenClassification", 2, dtype=torch.float32, attn_implementation="sdpa").eval()


def _open_gguf(file: Path) -> Any:
    import gguf  # noqa: F401  as above
    import torch
    from transformers import AutoModelForCausalLM

    with _quiet_stderr():
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        )
    return model.eval()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """transformers 5.23 draws a bar while it reads GGUF that its own switch for bars does not reach. Warnings come through."""
    held = StringIO()
    with redirect_stderr(held):
        yield
    lines = (line for line in held.getvalue().splitlines() if line.strip() and "de-quantizing" not in line)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
