"""A GGUF file as a plain fp32 model in safetensors, converted once.

transformers can load a GGUF file but then refuses to save or train the model, reads the metadata three times and builds its
table of tensor names once per submodule. Here its own conversion is called with the names alone, and the result is put into
a plain model of the same config: the same bytes as from the slow way (a test compares them) in about half the time.
"""

from __future__ import annotations

import contextlib
import gc
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries
from stages.fetch.locate import Wanted, listed

_DAMAGED = (ValueError, NotImplementedError, KeyError, IndexError, struct.error)


class _ParameterNames:
    """What transformers needs of a model to map tensor names: its config and parameter names, without walking its submodules."""

    def __init__(self, model: Any) -> None:
        self.config, self._names = model.config, model.state_dict()

    def state_dict(self) -> Any:
        return self._names

    def named_children(self) -> tuple[()]:
        return ()


def context_length(file: Path, wanted: Wanted) -> int | None:
    """Longest input in tokens, from the file's metadata."""
    metadata, _ = read_metadata(file, wanted)
    value = metadata.get(f"{metadata['general.architecture']}.context_length")
    return value if isinstance(value, int) else None


def read_metadata(file: Path, wanted: Wanted) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Metadata (arrays of strings as their length) and tensor names."""
    from transformers.integrations.gguf.reader import read_gguf_metadata

    with _explained(wanted):
        metadata, names = read_gguf_metadata(str(file))
        return metadata, names


def convert_model(file: Path, folder: Path, pad_token_id: int | None, wanted: Wanted) -> None:
    """Write config.json, generation_config.json and model.safetensors (fp32) into ``folder``.

    Raises:
        RegrowError: damaged, of an architecture or with tensors that transformers cannot convert.
    """
    quiet_libraries()
    _, names = read_metadata(file, wanted)
    if "rope_freqs.weight" in names:
        # transformers leaves this tensor out, and the model would lose its way beyond the length it was first trained on.
        raise RegrowError(
            f"{wanted.option} {wanted.text!r} holds scaled rotary frequencies (rope_freqs.weight), which cannot be converted.",
            "Use the same model in safetensors.",
        )
    with _explained(wanted), _collector_paused(), contextlib.redirect_stderr(io.StringIO()):  # a bar that no setting turns off
        model = _fill(_empty_model(file, pad_token_id), file)
    if missing := [name for name, value in model.named_parameters() if value.is_meta]:
        raise RegrowError(f"{wanted.option} {wanted.text!r} lacks weights: {listed(missing)}.", "It is not a whole model; use another.")
    model.save_pretrained(folder)


def _empty_model(file: Path, pad_token_id: int | None) -> Any:
    """A model of the file's config whose parameters have no memory yet."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    settings = load_gguf_checkpoint(str(file))["config"]  # type: ignore[no-untyped-call]
    settings.pop("_model_name_or_path", None)
    settings["pad_token_id"] = pad_token_id
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))  # type: ignore[no-untyped-call]


def _fill(model: Any, file: Path) -> Any:
    import torch
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    tensors = load_gguf_checkpoint(  # type: ignore[no-untyped-call]
        str(file), return_tensors=True, model_to_load=_ParameterNames(model), torch_dtype=torch.float32
    )["tensors"]
    model.load_state_dict(tensors, assign=True, strict=False)
    model.tie_weights()
    return model


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """The reader makes an array of each of 100,000 tokens and merges, none of them garbage: looking for some costs a third of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _explained(wanted: Wanted) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{wanted.option} {wanted.text!r} cannot be read as GGUF: {reason}",
            "Check that the file is whole, or use the same model in safetensors.",
        ) from error
