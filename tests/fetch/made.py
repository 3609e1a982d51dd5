"""Sources that the tests make: linked files as `configure` leaves them, wheels on a local index, a tiny GGUF file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifact import Artifact
from pipeline.progress import Progress
from pipeline.stage import Metrics
from stages.fetch import STAGE
from tests.tiny import run_stage

ROWS = '{"text": "a  1"}\n{"text": "b"}\n'


class Heard(Progress):
    """Keeps the lines that a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def link(workspace: Path, slot: str, *sources: Path) -> None:
    """What `configure` does: link a file by its name, or each file of a folder by its place in it."""
    for source in sources:
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for file in files:
            place = workspace / "data" / "sources" / slot / (file.relative_to(source) if source.is_dir() else file.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)


def fetch(workspace: Path, **options: Any) -> tuple[Mapping[str, Artifact], Metrics, list[str]]:
    """Run the stage; returns artifacts, metrics and the lines it said."""
    heard = Heard()
    artifacts, metrics = run_stage(STAGE, workspace, options, progress=heard)
    return artifacts, metrics, heard.lines


def write(path: Path, text: str = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_wheel(folder: Path, members: Mapping[str, str | bytes], name: str = "tiny_rows", version: str = "1.0") -> Path:
    """A wheel that pip takes for one, holding ``members``."""
    info = f"{name}-{version}.dist-info"
    texts: dict[str, str | bytes] = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in texts.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``folder`` all that pip finds packages in."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_gguf(path: Path, model: Any, *, pre: str | None = "smollm", quantized: Sequence[str] = (), **fields: int) -> Path:
    """A Llama model as llama.cpp's converter writes it: rows of q and k interleaved for its rotary kernel.

    ``quantized`` names the tensors to store as Q8_0; ``fields`` overrides tokenizer ids (``padding_token_id=…``).
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, pre, fields)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor = _interleaved(name, value.float().numpy(), config)
        target = names.get_name(name, try_suffixes=(".weight",))
        assert target is not None
        kind = gguf.GGMLQuantizationType.Q8_0 if target in quantized else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, pre: str | None, fields: Mapping[str, int]) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["Ċ Ċ", "Ġ Ġ", "h i"]
    tokens = [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in merges)]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 2} | dict(fields)
    for name, value in ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}", value)


def _interleaved(name: str, weight: np.ndarray, config: Any) -> np.ndarray:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
