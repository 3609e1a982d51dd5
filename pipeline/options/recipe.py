"""Reads params.yaml: parsed, checked whole, and handed out as views of single stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import RegrowError
from pipeline.options.problems import Problem, raise_all
from pipeline.options.rules import RULES
from pipeline.options.schema import View
from pipeline.options.source import Source, parse
from pipeline.options.validation import shape_problems, value_at
from pipeline.options.views import RecipeOptions

ViewT = TypeVar("ViewT", bound=View)


@dataclass(frozen=True)
class Recipe:
    """A valid params.yaml. ``source`` keeps the values as written and their lines."""

    options: RecipeOptions
    source: Source

    def view(self, kind: type[ViewT]) -> ViewT:
        """The options of one stage, as its own type."""
        return kind.model_validate(self.options.model_dump())


def load_recipe(path: Path) -> Recipe:
    """Read and check a params.yaml.

    Raises:
        RegrowError: the file cannot be read, is not YAML, or holds problems; all of them are in the message, each with
            its line, key, value, what is wrong and what would work.
    """
    return check_source(parse(_read(path), path.name))


def check_source(source: Source) -> Recipe:
    """Check a file that was read. Raises as :func:`load_recipe`."""
    shape = shape_problems(RecipeOptions, source.value)
    raise_all([*shape, *_rule_problems(source, shape)], source)
    return Recipe(RecipeOptions.model_validate(source.value), source)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RegrowError(f"{path} does not exist.", "Run the command where params.yaml is, or name the file.") from None
    except UnicodeDecodeError as error:
        raise RegrowError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise RegrowError(f"{path} cannot be read: {error.strerror}.", "Name a text file that you may read.") from None


_PLACEHOLDERS: dict[str, Any] = {
    "base_model": "placeholder",
    "datasets": [{"path": "placeholder", "type": "completion"}],
    "learning_rate": 1.0,
}
"""Stand in for required options that are missing or wrong, so that the rules between the others are still checked."""


def _rule_problems(source: Source, shape: list[Problem]) -> list[Problem]:
    """Rules on the sound part of the file: a top-level key with a problem counts as not set, and silences its rules."""
    unsound = {problem.path[0] for problem in shape if problem.path}
    sound = {key: value for key, value in source.value.items() if key not in unsound}
    options = RecipeOptions.model_validate(_PLACEHOLDERS | sound)
    broken = [item for rule in RULES for item in rule(options) if not unsound & {key[0] for key in item.keys}]
    return [
        Problem(_anchor(source, item.keys), value_at(source.value, _anchor(source, item.keys)), item.wrong, item.works) for item in broken
    ]


def _anchor(source: Source, keys: tuple[tuple[str | int, ...], ...]) -> tuple[str | int, ...]:
    """The first key that the file holds: the message should point at something the user wrote."""
    return next((key for key in keys if key in source.lines), keys[0])
