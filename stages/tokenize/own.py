"""Your own format: a dotted name of a function or module of yours.

* ``package.module.function``: called with each row, returns a row with ``messages``, which is then a chat_template row; with
  ``rl``, a row with ``prompt``, ``chosen`` and ``rejected`` (KTO: ``prompt``, ``completion``, ``label``; GRPO: ``prompt``, and
  whatever the functions that score answers want to know).
* ``package.module`` or ``package.module.load_x``: Axolotl's interface, ``load(tokenizer, cfg, ds_cfg)`` returns an
  object whose ``tokenize_prompt(row)`` gives ``input_ids`` and ``labels`` (-100 where nothing is trained).
* with ``rl``, ``package.module.function`` whose first parameter is called ``cfg``: Axolotl's interface there, it returns the
  function that is called with each row, alone or with a mapping such as ``{"remove_columns": [...]}``. With GRPO, columns that
  the function does not return are kept then, except those.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.dataset_types import TYPES, Kind, nearest
from pipeline.options.datasets import DatasetFormat
from pipeline.options.views import TokenizeOptions
from stages.tokenize.example import BadRow, Format, Made, Row, Tokenized
from stages.tokenize.ready import tokenized

RowFunction = Callable[[dict[str, Any]], dict[str, Any]]


class Config(dict[str, Any]):
    """Options as Axolotl's own modules expect them: attributes too, and nothing where there is none."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


def own_format(name: str, entry: DatasetFormat, options: TokenizeOptions, tokenizer: Path, chat: Callable[[], Format]) -> Format:
    """The format that ``name`` stands for. ``chat`` makes the chat_template format for rows that become messages.

    Raises:
        RegrowError: the name cannot be imported, or what it names cannot make a format.
    """
    found = _find(name, "text")
    if callable(found) and not getattr(found, "__name__", "").startswith("load"):
        return _Prepared(_checked(found, name), chat())
    load = found if callable(found) else getattr(found, "load", None)
    if load is None:
        raise RegrowError(
            f"Module {name!r}, named as a dataset type, has no function `load`.",
            "Name one of its functions instead: it is called with each row and returns a row with `messages`.",
        )
    return _strategy(load, name, entry, options, tokenizer)


class _Prepared:
    """A format for rows that a function has changed before.

    Attributes:
        warnings: those of the format.
    """

    def __init__(self, prepare: RowFunction, format_row: Format) -> None:
        self._prepare, self._format = prepare, format_row
        self.warnings: Sequence[str] = getattr(format_row, "warnings", ())

    def __call__(self, row: Row) -> Made:
        return self._format(self._prepare(dict(row)))


def own_pairs(name: str, options: TokenizeOptions, kind: Kind) -> RowFunction:
    """The function that ``name`` stands for where preferences are learned: from a row to one that is ready.

    Raises:
        RegrowError: as of :func:`own_format`.
    """
    function, _ = _row_function(name, options, kind)
    return _checked(function, name)


def own_prompts(name: str, options: TokenizeOptions, tokenizer: Path) -> RowFunction:
    """The function that ``name`` stands for where the model answers prompts: from a row to its prompt and other columns.

    Raises:
        RegrowError: as of :func:`own_format`.
    """
    function, keywords = _row_function(name, options, "prompts")
    if _wants(function, "tokenizer"):
        function = partial(function, tokenizer=_open(tokenizer))
    made = _checked(function, name)
    if keywords is None:
        return made
    removed = keywords.get("remove_columns") or ()
    return lambda row: {key: value for key, value in row.items() if removed != "__all__" and key not in removed} | made(row)


def _row_function(name: str, options: TokenizeOptions, kind: Kind) -> tuple[Callable[..., Any], dict[str, Any] | None]:
    """The function for single rows; with Axolotl's interface also what it gave along for mapping a dataset."""
    found = _find(name, kind)
    if not callable(found):
        raise RegrowError(f"{name!r}, named as a dataset type, is no function.", "Name a function of it: it is called with each row.")
    if next(iter(inspect.signature(found).parameters), None) != "cfg":
        return found, None
    made = _call(found, name, Config(options.model_dump()), dataset_idx=0)
    return made if isinstance(made, tuple) else (made, {})


def _wants(function: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(function).parameters


def _find(name: str, kind: Kind) -> Any:
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
        except Exception as error:
            raise RegrowError(f"Dataset type {name!r} cannot be imported: {type(error).__name__}: {error}.") from error
    near = nearest(name, TYPES[kind])
    raise RegrowError(
        f"Dataset type {name!r} is neither a type that regrow knows nor a module or function that can be imported here.",
        f"Did you mean {near}?" if near else f"Types: {', '.join(TYPES[kind])}; a name of your own is looked for beside params.yaml.",
    )


def _checked(function: Callable[..., Any], name: str) -> RowFunction:
    """``function`` with its failures as reasons."""

    def own(row: dict[str, Any]) -> dict[str, Any]:
        try:
            made = function(row)
        except Exception as error:
            raise BadRow(f"{name} raises {type(error).__name__}: {error}") from error
        if not isinstance(made, dict):
            raise BadRow(f"{name} returns no row")
        return made

    return own


def _call(load: Callable[..., Any], name: str, *arguments: Any, **further: Any) -> Any:
    """Call Axolotl's interface with those of ``further`` that it takes."""
    parameters = inspect.signature(load).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    try:
        return load(*arguments, **{key: value for key, value in further.items() if takes_all or key in parameters})
    except Exception as error:
        raise RegrowError(f"Dataset type {name!r} cannot be loaded: it raises {type(error).__name__}: {error}.") from error


def _open(tokenizer: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)


def _strategy(load: Callable[..., Any], name: str, entry: DatasetFormat, options: TokenizeOptions, tokenizer: Path) -> Format:
    strategy = _call(load, name, _open(tokenizer), Config(options.model_dump()), ds_cfg=Config(entry.model_dump()))

    def own(row: Row) -> Tokenized:
        try:
            made = strategy.tokenize_prompt(dict(row))
            labels, ids = [int(label) for label in made["labels"]], [int(token) for token in made["input_ids"]]
        except Exception as error:
            raise BadRow(f"{name} raises {type(error).__name__}: {error}") from error
        if len(labels) != len(ids):
            raise BadRow(f"{name} gives {len(ids)} input_ids and {len(labels)} labels")
        return tokenized(ids, labels)

    return own
