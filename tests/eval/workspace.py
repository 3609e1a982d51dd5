"""A hand-made data/ folder with everything that eval reads: tiny random models, chat rows with the answers "yes" and "no"."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, Draft, seal
from tests.eval.quantized import write_int8, write_q8_0
from tests.tiny import publish_artifact, publish_bins, publish_tokens, save_model, save_tokenizer

END = 2  # <|im_end|> of the byte-level tokenizer
LOG = "step,epoch,loss,learning_rate\n" + "".join(f"{step},{step / 24:.2f},{3 / step:.4f},0.001\n" for step in range(1, 25))

Row = tuple[list[int], list[int]]


def chat_row(tokenizer: Any, prompt: str, answer: str) -> Row:
    """Ids and mask of one exchange; the answer and its end token are trained."""
    before = tokenizer.encode(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    after = [*tokenizer.encode(answer, add_special_tokens=False), END]
    return before + after, [0] * len(before) + [1] * len(after)


def questions(tokenizer: Any, count: int = 12) -> list[Row]:
    """Rows of different lengths, answered "yes" and "no" in turns."""
    return [chat_row(tokenizer, f"is {number} odd{'?' * (7 * number % 20)}", ("no", "yes")[number % 2]) for number in range(count)]


def make_workspace(folder: Path, rows: Callable[[Any], Sequence[Row]] = questions, held_out: int = 10) -> Path:
    """``folder/data`` with all artifacts; the first ``held_out`` rows are held out, the others trained."""
    data = folder / "data"
    publish_artifact(data, "tokenizer", save_tokenizer)
    made = list(rows(open_tokenizer(data)))
    publish_models(data, made)
    publish_tokens(data, made)
    publish_artifact(data, "dedupe", lambda path: None, rows=len(made), kept=len(made), removed={})
    publish_bins(data, [list(range(held_out, len(made)))] if held_out < len(made) else [], [[row] for row in range(held_out)])
    publish_artifact(data, "benchmark", lambda path: None, sources=[])
    publish_artifact(data, "trained", lambda path: (path / "log.csv").write_text(LOG))
    return folder


def publish_models(data: Path, rows: Sequence[Row]) -> None:
    """base is random, merged knows ``rows`` by heart; quantized holds int8 and q8_0 of merged."""

    def quantize(folder: Path) -> None:
        write_int8(folder / "int8", data / "merged")
        (folder / "q8_0").mkdir()
        write_q8_0(folder / "q8_0" / "model.gguf", data / "merged")

    publish_artifact(data, "base", lambda folder: save_model(folder, seed=0))
    publish_artifact(data, "merged", lambda folder: _memorise(data / "base", folder, rows))
    publish_artifact(data, "quantized", quantize)


def _memorise(source: Path, folder: Path, rows: Sequence[Row], steps: int = 60) -> None:
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(source)
    ids = pad_sequence([torch.tensor(row) for row, _ in rows], batch_first=True)
    mask = pad_sequence([torch.tensor(mask, dtype=torch.bool) for _, mask in rows], batch_first=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[:, :-1][mask[:, 1:]], ids[:, 1:][mask[:, 1:]])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def open_tokenizer(data: Path) -> Any:
    """The tokenizer of the workspace."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data / "tokenizer")


def replace(data: Path, name: str, publish: Callable[[], Any]) -> None:
    """Publish an artifact of a workspace anew."""
    shutil.rmtree(data / name)
    publish()


def reseal(data: Path, name: str, **content: Any) -> Artifact:
    """Change what a hand-made artifact's manifest says."""
    from pipeline.artifact import open_artifact

    old = open_artifact(data / name, verify=False)
    return seal(Draft(name, data / name, {**old.content, **content}), old.inputs)


def drop_quantized(data: Path) -> None:
    """base and merged alone: half the models to open."""
    replace(data, "quantized", lambda: publish_artifact(data, "quantized", lambda folder: None))
