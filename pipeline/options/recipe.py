"""Reads params.yaml: parsed, checked whole, and handed out as views of single stages."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.errors import RegrowError
from pipeline.options.defaults import settled
from pipeline.options.pretraining import as_datasets
from pipeline.options.reading.normal import normal_form
from pipeline.options.reading.problems import Problem, raise_all
from pipeline.options.reading.renames import apply_renames
from pipeline.options.reading.settings_file import read_settings_file
from pipeline.options.reading.source import Place, Source, parse
from pipeline.options.reading.statuses import status_problems
from pipeline.options.reading.template_files import read_template_files
from pipeline.options.reading.validation import shape_problems, shown_at, value_at
from pipeline.options.rules import ADVICE, RULES, Rule
from pipeline.options.schema import View, facts_of
from pipeline.options.views import VIEWS, RecipeOptions

ViewT = TypeVar("ViewT", bound=View)


@dataclass(frozen=True)
class Recipe:
    """A valid params.yaml.

    Attributes:
        options: all of them, defaults filled in.
        source: the values as written, under their new names, and their lines.
        warnings: what is accepted and should be known: old names, keys without effect. One line each.
        files: files whose text, or what it says, stands in the options in place of their name.
    """

    options: RecipeOptions
    source: Source
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def view(self, kind: type[ViewT]) -> ViewT:
        """The options of one stage, as its own type, with the defaults that other options decide."""
        return kind.model_validate(self.options.model_dump() | settled(self.options))


def load_recipe(path: Path, *, data_only: bool = False) -> Recipe:
    """Read and check a params.yaml.

    ``data_only``: it is for fetch, tokenize, dedupe and pack alone, so what only later stages do not support yet is no matter.

    Raises:
        RegrowError: the file cannot be read, is not YAML, or holds problems; all of them are in the message, each with
            its line, key, value, what is wrong and what would work.
    """
    source = parse(read_text(path), path.name)
    files = (*read_template_files(source, path.parent), *read_settings_file(source, path.parent))
    return replace(check_source(source, data_only=data_only), files=files)


def check_source(source: Source, *, data_only: bool = False) -> Recipe:
    """Check a file that was read; its values are brought into normal form. Arguments and errors as of :func:`load_recipe`."""
    problems, warnings = examine(source, data_only=data_only)
    raise_all(problems, source)
    options = RecipeOptions.model_validate(_with_datasets(source.value))
    advice = [problem.render(source) for problem in (*warnings, *_by_rules(source, options, ADVICE, set()))]
    return Recipe(options, source, tuple(dict.fromkeys(advice)))


def examine(source: Source, *, data_only: bool = False) -> tuple[list[Problem], list[Problem]]:
    """All problems of a file, and warnings about old names. ``data_only`` as of :func:`load_recipe`."""
    warnings = _null_choices(source)
    source.value = normal_form(RecipeOptions, source.value)
    renaming = apply_renames(source)
    shape = [problem for problem in shape_problems(RecipeOptions, source.value) if not _replaced(problem, source.value)]
    unsound = {problem.path for problem in shape}
    statuses = [problem for problem in status_problems(RecipeOptions, source.value) if problem.path not in unsound]
    statuses = [problem for problem in statuses if not (data_only and _awaits_training(problem))]
    unsound |= {problem.path for problem in statuses if problem.breaks_model}
    rules = [
        problem
        for problem in _by_rules(source, _sound_part(source.value, unsound), RULES, unsound)
        if not data_only or str(problem.path[0]) in _DATA
    ]
    return [*renaming.problems, *shape, *statuses, *rules], [*warnings, *renaming.warnings]


_DATA = frozenset(name for stage in ("fetch", "tokenize", "dedupe", "pack") for name in VIEWS[stage].model_fields)
"""Options of the stages that make rows."""


def _awaits_training(problem: Problem) -> bool:
    """Whether all that an option lacks is a stage after pack."""
    key = str(problem.path[0])
    facts = facts_of(RecipeOptions.model_fields[key])
    return facts.not_yet and not problem.breaks_model and (facts.prepared or key not in _DATA)


def read_text(path: Path) -> str:
    """A text file, or a RegrowError that says why not."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise RegrowError(f"{path} does not exist.", "Run the command where params.yaml is, or name the file.") from None
    except UnicodeDecodeError as error:
        raise RegrowError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise RegrowError(f"{path} cannot be read: {error.strerror}.", "Name a text file that you may read.") from None
    if len(text) > _LARGEST:
        raise RegrowError(f"{path} has more than {_LARGEST} characters.", "Name a config, or a chat template; neither is a tenth as long.")
    return text


_LARGEST = 2**22


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
        return RecipeOptions.model_validate(_PLACEHOLDERS | _with_datasets(sound))
    except ValidationError:
        tops = {path[0] for path in unsound}
        kept = {key: value for key, value in values.items() if key not in tops}
        return RecipeOptions.model_validate(_PLACEHOLDERS | _with_datasets(kept))


def _by_rules(source: Source, options: RecipeOptions, rules: tuple[Rule, ...], unsound: set[Place]) -> list[Problem]:
    """What breaks ``rules``; those that look at something unsound have nothing to say."""
    found = [item for rule in rules for item in rule(options) if not any(_overlap(key, path) for key in item.keys for path in unsound)]
    anchored = [(_anchor(source, item.keys), item) for item in found]
    return [Problem(place, shown_at(RecipeOptions, source.value, place), item.wrong, item.works) for place, item in anchored]


def _overlap(one: Place, other: Place) -> bool:
    return all(left == right for left, right in zip(one, other, strict=False))


def _anchor(source: Source, keys: tuple[Place, ...]) -> Place:
    """The first key that the file holds: the message should point at something the user wrote."""
    return next((key for key in keys if key in source.lines), keys[0])


def _with_datasets(values: dict[Any, Any]) -> dict[Any, Any]:
    """Rules and stages look at `datasets`, whichever list the file has."""
    if "pretraining_dataset" in values and "datasets" not in values:
        return values | {"datasets": as_datasets(values["pretraining_dataset"])}
    return values


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
