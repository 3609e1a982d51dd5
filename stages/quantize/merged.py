"""The merged model as quantize sees it: opened, and what of it is quantised: linear layers, but for the output head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import judges


@dataclass(frozen=True)
class Layers:
    """The shape of a model.

    Attributes:
        rows: by the name of each linear layer, the weights in one row of it.
        head: name of the output head.
        embedding: name of the input embeddings.
        embedding_row: weights in one row of these.
        parameters: tensors of the model, a tied one once.
        weights: numbers in all of them.
    """

    rows: dict[str, int]
    head: str | None
    embedding: str
    embedding_row: int
    parameters: int
    weights: int

    def rounded(self, *, embedding: bool = False) -> dict[str, int]:
        """Weights in one row of every layer that is quantised, by its name; ``embedding``: these too."""
        return self.rows | ({self.embedding: self.embedding_row} if embedding else {})


def read_layers(merged: Path, name: str) -> Layers:
    """The shape of the model in ``merged``, from its configuration alone. ``name``: the format that asks.

    Raises:
        RegrowError: transformers cannot open it, or it has no linear layer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if (judge := judges(merged)) is not None:
        raise RegrowError(
            f"{merged} is a {judge}, which judges text and writes none; {name} is for models that write.", "Write `quantize: []`."
        )
    try:
        config = AutoConfig.from_pretrained(merged, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise _unopened(merged, name, error) from error
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    modules = list(model.named_modules())
    rows = {place: module.in_features for place, module in modules if isinstance(module, torch.nn.Linear) and module is not head}
    if not rows:
        raise RegrowError(f"{merged} has no linear layer that {name} could quantize.", f"Remove {name} from quantize.")
    parameters = [parameter.numel() for parameter in model.parameters()]
    names = {id(module): place for place, module in modules}
    return Layers(rows, names.get(id(head)), names[id(embedding)], embedding.weight.shape[-1], len(parameters), sum(parameters))


def open_merged(merged: Path, name: str, *, untied: str | None = None, **settings: Any) -> Any:
    """The model in ``merged`` in its own numbers.

    Args:
        untied: the name of a tensor that the caller fills, because the file does not hold it.
        settings: further keywords of transformers' ``from_pretrained``.

    Raises:
        RegrowError: transformers, or a library that quantises while it loads, cannot open it, or it is no whole causal language model.
    """
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            merged, dtype="auto", local_files_only=True, trust_remote_code=False, output_loading_info=True, **settings
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unopened(merged, name, error) from error
    model, found = loaded
    missing = sorted(set(found["missing_keys"]) - {untied})
    if missing:
        wrong = f"{merged} lacks {', '.join(missing[:3])} of a {type(model).__name__}: {name} is for causal language models."
        raise RegrowError(wrong, f"Remove {name} from quantize.")
    return model


def _unopened(merged: Path, name: str, error: Exception) -> RegrowError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RegrowError(f"The model in {merged} cannot be opened for {name}: {reason}", f"Remove {name} from quantize.")
