"""What is refused is refused with its line, and what asks for nothing is accepted and changes nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.options.catalogue import Option, catalogue
from pipeline.options.reading.statuses import idle_values
from pipeline.options.recipe import Recipe
from pipeline.options.views import VIEWS
from tests.options.configs import GOOD, accepted, refused
from tests.options.values import effective_value

REFUSED = [option for option in catalogue().values() if option.facts.status == "refused" and "." not in option.place]
NESTED = [option for option in catalogue().values() if option.facts.not_yet and option.place.startswith(("datasets.", "special_tokens."))]


def line_of(key: str, value: Any) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10000
    yaml.dump({key: value}, stream)
    return stream.getvalue().strip()[1:-1] + "\n"


def canonicals(recipe: Recipe) -> dict[str, Any]:
    return {stage: recipe.view(view).canonical() for stage, view in VIEWS.items()}


def plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def test_stating_every_default_asks_for_nothing() -> None:
    stated = [option for option in catalogue().values() if "." not in option.place and not option.field.is_required()]
    text = GOOD + "".join(line_of(option.place, plain(option.field.get_default())) for option in stated)
    assert canonicals(accepted(text)) == canonicals(accepted(GOOD))


@pytest.mark.parametrize("option", REFUSED, ids=lambda option: option.place)
def test_idle_values_are_accepted_and_change_nothing(option: Option) -> None:
    for value in idle_values(option.field):
        if option.place == "save_strategy" and value == "steps":
            continue  # a rule asks for save_steps
        assert canonicals(accepted(GOOD + line_of(option.place, value))) == canonicals(accepted(GOOD))


# Both values are met: weights are always held in fp32.
@pytest.mark.parametrize("option", [option for option in REFUSED if option.place != "float32"], ids=lambda option: option.place)
def test_what_asks_for_something_is_refused_with_its_line(option: Option) -> None:
    found = refused(GOOD + line_of(option.place, effective_value(option)))
    assert any(line == 6 and key == option.place and ("not yet supported" in rest or "refused" in rest) for line, key, rest in found)


@pytest.mark.parametrize("option", NESTED, ids=lambda option: option.place)
def test_nested_options_are_refused_with_their_line(option: Option) -> None:
    line = line_of(option.name, effective_value(option))
    if option.place.startswith("datasets.type."):
        text = GOOD.replace("    type: chat_template\n", f"    type:\n      {line}")
        assert ("datasets.0.type", "a mapping of columns is not yet supported") in [
            (key, rest.split(" — ")[1].split(";")[0]) for _, key, rest in refused(text)
        ]
        return
    text = (
        GOOD.replace("    type:", f"    {line}    type:") if option.place.startswith("datasets.") else GOOD + f"special_tokens:\n  {line}"
    )
    number = 4 if option.place.startswith("datasets.") else 7
    assert any(found == number and "not yet supported" in rest for found, _, rest in refused(text))


@pytest.mark.parametrize(
    ("key", "value"), [("optimizer", "paged_adamw_8bit"), ("lr_scheduler", "rex"), ("chat_template", "llama3"), ("bf16", "full")]
)
def test_values_that_do_not_work_yet_say_so(key: str, value: str) -> None:
    ((line, found, rest),) = refused(GOOD + f"{key}: {value}\n")
    assert (line, found) == (6, key) and "not yet supported; what works: " in rest


@pytest.mark.parametrize("words", [["yes", "no", "on", "off"], ["True", "False", "true", "false"], ["1", "0"]])
def test_truth_is_read_as_axolotl_reads_it(words: list[str]) -> None:
    yes, no = words[0::2], words[1::2]
    for word in yes:
        assert accepted(GOOD + f"sample_packing: {word}\nload_in_4bit: {no[0]}\n").options.sample_packing is True
    for word in no:
        assert accepted(GOOD + f"shuffle_merged_datasets: {word}\nload_in_4bit: {word}\n").options.shuffle_merged_datasets is False


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("sharegpt", "chat_template"),
        ("alpaca_chat.load_qa", "not yet supported"),
        ("oasst:chat", "not yet supported"),
        ("chat_template.default", "not yet supported"),
        ("chat_templat", "did you mean `chat_template`"),
        ("my rows", "no such type"),
    ],
)
def test_dataset_types(kind: str, says: str) -> None:
    ((line, key, rest),) = refused(GOOD.replace("chat_template", kind))
    assert (line, key) == (4, "datasets.0.type") and says in rest


def test_own_dataset_types_pass() -> None:
    assert (
        accepted(GOOD.replace("chat_template", "recipes.headlines.to_messages")).options.datasets[0].type == "recipes.headlines.to_messages"
    )
