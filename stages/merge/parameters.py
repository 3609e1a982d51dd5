"""Which parameters an adapter with ``target_parameters`` changes: peft writes the module's name and not the parameter's.

peft wraps a module once for each of its parameters, in the order in which the model's class declares them. So the model is
built without memory for its weights, to ask for that order and for the layout of stacks of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.models import quiet_libraries


def wrapped_parameters(base: Path, targets: Sequence[str]) -> tuple[dict[str, list[str]], frozenset[str]]:
    """Modules with adapted parameters, and the full names of stacks whose matrices are stored ``[in, out]``.

    Raises:
        RegrowError: a model type that transformers does not know.
    """
    if not targets:
        return {}, frozenset()
    modules: dict[str, list[str]] = {}
    transposed: set[str] = set()
    for module_name, module in _shapes_only(base).named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{module_name}.{name}"
            if any(f".{full}".endswith(f".{target}") for target in targets):
                modules.setdefault(module_name, []).append(name)
                if parameter.dim() == 3 and getattr(module, "is_transposed", False):
                    transposed.add(full)
    return modules, frozenset(transposed)


def _shapes_only(base: Path) -> Any:
    quiet_libraries()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        raise RegrowError(f"{base / 'config.json'} names no causal language model of transformers: {error}.") from None
