"""Your own format: a dotted name of a function or module of yours.

* ``package.module.function``: called with each row, returns a row with ``messages``, which is then a chat_template row.
* ``package.module`` or ``package.module.load_x``: Axolotl's interface, ``load(tokenizer, cfg, ds_cfg)`` returns an
  object whose ``tokenize_prompt(row)`` gives ``input_ids`` and ``labels`` (-100 where nothing is trained).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.datasets import DatasetFormat
from stages.tokenize.example import BadRow, Example, Format, Row, Tokenized


def own_format(entry: DatasetFormat, tokenizer_folder: Path, chat: Callable[[], Format]) -> Format:
    """The format that ``entry.type`` names. ``chat`` makes the chat_template format for rows that become messages."""
    found = _find(entry.type)
    if callable(found) and not found.__name__.startswith("load"):
        return _row_function(found, chat())
    load = found if callable(found) else getattr(found, "load", None)
    if load is None:
        raise RegrowError(
            f"Module {entry.type!r}, named as a dataset type, has no function `load`.",
            "Name one of its functions instead: it is called with each row and returns a row with `messages`.",
        )
    return _strategy(load, entry, tokenizer_folder)


def _find(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _, attribute = name.rpartition(".")
    for candidate, inner in ((name, None), (module_name, attribute)):
        try:
            module = importlib.import_module(candidate)
            return module if inner is None else getattr(module, inner)
        except ModuleNotFoundError as error:
            if error.name is None or not (candidate == error.name or candidate.startswith(f"{error.name}.")):
                raise RegrowError(f"Dataset type {name!r} cannot be imported: {error}.") from error
        except AttributeError:
            break
    raise RegrowError(
        f"Dataset type {name!r} is neither a type that regrow knows nor a module or function that can be imported here.",
        "Types: chat_template, completion, alpaca, or a dotted name found from the folder of params.yaml.",
    )


def _row_function(function: Callable[[dict[str, Any]], Any], chat: Format) -> Format:
    def own(row: Row) -> Example | Tokenized:
        try:
            made = function(dict(row))
        except Exception as error:
            raise BadRow(f"{function.__module__}.{function.__name__} raises {type(error).__name__}: {error}") from error
        if not isinstance(made, dict):
            raise BadRow(f"{function.__module__}.{function.__name__} returns no row")
        return chat(made)

    return own


def _strategy(load: Callable[..., Any], entry: DatasetFormat, tokenizer_folder: Path) -> Format:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    strategy = load(tokenizer, {}, entry.model_dump())

    def own(row: Row) -> Tokenized:
        try:
            made = strategy.tokenize_prompt(dict(row))
            labels, ids = list(made["labels"]), list(made["input_ids"])
        except Exception as error:
            raise BadRow(f"{entry.type} raises {type(error).__name__}: {error}") from error
        if len(labels) != len(ids):
            raise BadRow(f"{entry.type} gives {len(ids)} input_ids and {len(labels)} labels")
        return Tokenized(ids, [int(label != -100) for label in labels])

    return own
