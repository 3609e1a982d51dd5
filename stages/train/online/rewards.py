"""Who scores answers: functions of the user's own, and reward models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import RegrowError
from pipeline.generation import reward_names
from pipeline.own_code import find_function

_OPTION = "trl.reward_funcs"


class Judge(NamedTuple):
    """A function, or a reward model with its tokenizer; and the name under which its scores are logged."""

    name: str
    judge: Any
    tokenizer: Any = None


def judges_of(names: Sequence[str]) -> list[Judge]:
    """What ``trl.reward_funcs`` names.

    Raises:
        RegrowError: there is none under a name, or it cannot score answers.
    """
    return [_judge(name, short) for name, short in zip(names, reward_names(names), strict=True)]


def _judge(name: str, short: str) -> Judge:
    if Path(name).is_dir():
        return _reward_model(Path(name), short)
    function = find_function(name, _OPTION)
    if len(inspect.signature(function).parameters) < 2:
        raise RegrowError(
            f"{_OPTION}: {name} takes {len(inspect.signature(function).parameters)} arguments, and is given prompts, completions and more.",
            f"Write `def {function.__name__}(prompts, completions, **columns)`, and return a number for each completion.",
        )
    return Judge(short, _checked(function, name))


def _reward_model(folder: Path, short: str) -> Judge:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    kept: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=True, **kept)
        return Judge(short, model, AutoTokenizer.from_pretrained(folder, **kept))
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise RegrowError(f"{_OPTION}: {folder} cannot be opened as a reward model: {said}", "Name a folder with its tokenizer.") from error


def _checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``function`` with its failures said by name. One that waits for something elsewhere (async) is TRL's to call."""
    if inspect.iscoroutinefunction(function):
        return function

    @wraps(function)
    def scores(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        try:
            found = function(prompts=prompts, completions=completions, **columns)
            numbers = [None if score is None else float(score) for score in found]
        except Exception as error:
            raise RegrowError(f"{_OPTION}: {name} raises {type(error).__name__}: {error}.") from error
        if len(numbers) != len(completions):
            raise RegrowError(f"{_OPTION}: {name} returns {len(numbers)} scores for {len(completions)} answers.", "Return one for each.")
        return numbers

    return scores
