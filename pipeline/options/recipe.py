"""Reads params.yaml: parsed, checked whole, and handed out as views of single stages."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.errors import RegrowError
from pipeline.options.defaults import settled
from pipeline.options.reading.normal import normal_form
from pipeline.options.reading.problems import Problem, raise_all
from pipeline.options.reading.renames import apply_renames
from pipeline.options.reading.source import Place, Source, parse
from pipeline.options.reading.statuses import status_problems
from pipeline.options.reading.validation import shape_problems, value_at
from pipeline.options.rules import ADVICE, RULES, Rule
from pipeline.options.schema import View
from pipeline.options.views import RecipeOptions

ViewT = TypeVar("ViewT", bound=View)


@dataclass(frozen=True)
class Recipe:
    """A valid params.yaml.

    Attributes:
        options: all of them, defaults filled in.
        source: the values as written, under their new names, and their lines.
        warnings: what is accepted and should be known: old names, keys without effect. One line each.
    """

    options: RecipeOptions
    source: Source
    warnings: tuple[str, ...] = ()

    def view(self, kind: type[ViewT]) -> ViewT:
        """The options of one stage, as its own type, with the defaults that other options decide."""
        return kind.model_validate(self.options.model_dump() | settled(self.options))


def load_recipe(path: Path) -> Recipe:
    """Read and check a params.yaml.

    Raises:
        RegrowError: the file cannot be read, is not YAML, or holds problems; all of them are in the message, each with
            its line, key, value, what is wrong and what would work.
    """
    return check_source(parse(read_text(path), path.name))


def check_source(source: Source) -> Recipe:
    """Check a file that was read; its values are brought into normal form. Raises as :func:`load_recipe`."""
    problems, warnings = examine(source)
    raise_all(problems, source)
    options = RecipeOptions.model_validate(source.value)
    advice = [problem.render(source) for problem in (*warnings, *_by_rules(source, options, ADVICE, set()))]
    return Recipe(options, source, tuple(dict.fromkeys(advice)))


def examine(source: Source) -> tuple[list[Problem], list[Problem]]:
    """All problems of a file, and warnings about old names."""
    warnings = _null_choices(source)
    source.value = normal_form(RecipeOptions, source.value)
    renaming = apply_renames(source)
    shape = [problem for problem in shape_problems(RecipeOptions, source.value) if not _replaced(problem, source.value)]
    unsound = {problem.path for problem in shape}
    statuses = [problem for problem in status_problems(RecipeOptions, source.value) if problem.path not in unsound]
    unsound |= {problem.path for problem in statuses if problem.breaks_model}
    rules = _by_rules(source, _sound_part(source.value, unsound), RULES, unsound)
    return [*renaming.problems, *shape, *statuses, *rules], [*warnings, *renaming.warnings]


def read_text(path: Path) -> str:
    """A text file, or a RegrowError that says why not."""
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


def _sound_part(values: dict[Any, Any], unsound: set[Place]) -> RecipeOptions:
    """The options without what is wrong: single keys if that is enough, else the top-level keys that hold them."""
    sound = copy.deepcopy(values)
    for path in unsound:
        holder = value_at(sound, path[:-1])
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
    try:
        return RecipeOptions.model_validate(_PLACEHOLDERS | sound)
    except ValidationError:
        tops = {path[0] for path in unsound}
        return RecipeOptions.model_validate(_PLACEHOLDERS | {key: value for key, value in values.items() if key not in tops})


def _by_rules(source: Source, options: RecipeOptions, rules: tuple[Rule, ...], unsound: set[Place]) -> list[Problem]:
    """What breaks ``rules``; those that look at something unsound have nothing to say."""
    found = [item for rule in rules for item in rule(options) if not any(_overlap(key, path) for key in item.keys for path in unsound)]
    return [
        Problem(_anchor(source, item.keys), value_at(source.value, _anchor(source, item.keys)), item.wrong, item.works) for item in found
    ]


def _overlap(one: Place, other: Place) -> bool:
    return all(left == right for left, right in zip(one, other, strict=False))


def _anchor(source: Source, keys: tuple[Place, ...]) -> Place:
    """The first key that the file holds: the message should point at something the user wrote."""
    return next((key for key in keys if key in source.lines), keys[0])


def _replaced(problem: Problem, values: dict[Any, Any]) -> bool:
    """Pretraining takes the place of `datasets`."""
    return problem.path == ("datasets",) and "datasets" not in values and "pretraining_dataset" in values


def _null_choices(source: Source) -> list[Problem]:
    """A null is no choice, though Axolotl's documentation shows it as one in these two places."""
    found: list[Problem] = []
    entries = source.value.get("datasets")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        for key, default, none in (("roles_to_train", "[assistant]", "[]"), ("train_on_eos", "turn", "none")):
            if isinstance(entry, dict) and key in entry and entry[key] is None:
                found.append(
                    Problem(("datasets", index, key), None, f"means the default, {default}", f"write `{key}: {none}` to train none")
                )
    return found
