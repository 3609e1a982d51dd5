"""What is refused is refused with its line, and what asks for nothing is accepted and changes nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.optimizers import GONE
from pipeline.options.catalogue import Option, catalogue
from pipeline.options.reading.source import parse
from pipeline.options.reading.statuses import idle_values
from pipeline.options.recipe import Recipe, check_source
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
    text = (
        GOOD.replace("    type:", f"    {line}    type:") if option.place.startswith("datasets.") else GOOD + f"special_tokens:\n  {line}"
    )
    number = 4 if option.place.startswith("datasets.") else 7
    assert any(found == number and "not yet supported" in rest for found, _, rest in refused(text))


@pytest.mark.parametrize(("key", "value"), [("optimizer", "muon_8bit"), ("attn_implementation", "xformers")])
def test_values_that_do_not_work_yet_say_so(key: str, value: str) -> None:
    ((line, found, rest),) = refused(GOOD + f"{key}: {value}\n")
    assert (line, found) == (6, key) and "not yet supported; what works: " in rest


@pytest.mark.parametrize(("name", "_why", "works"), GONE)
def test_optimizers_that_are_gone_say_what_to_write(name: str, _why: str, works: str) -> None:
    ((line, found, rest),) = refused(GOOD + f"optimizer: {name}\n")
    assert (line, found) == (6, "optimizer") and "refused: " in rest and rest.endswith(works)


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
        ("alpaca_chat.load_q", "did you mean `alpaca_chat.load_qa`"),
        ("alpaca_chat:load_qa", "did you mean `alpaca_chat.load_qa`"),
        ("oasst:vicuna", "oasst has no style 'vicuna'; its styles: instruct, chat, chatml, phi"),
        ("chat_template.default", "it is a type for `rl: dpo`, ipo or simpo"),
        ("chatml", "it is a type for `rl: dpo`"),
        ("stepwise_supervised", "it is a type for `process_reward_model: true`"),
        ("user_defined", "write the mapping"),
        ("chat_templat", "did you mean `chat_template`"),
        ("my rows", "no such type"),
    ],
)
def test_dataset_types(kind: str, says: str) -> None:
    ((line, key, rest),) = refused(GOOD.replace("chat_template", kind))
    assert (line, key) == (4, "datasets.0.type") and says in rest


@pytest.mark.parametrize(
    ("aim", "kind", "says"),
    [
        ("rl: dpo", "chatml.argilla", "it is a type for `rl: kto`; what works here: chatml.default, chatml.argilla_chat"),
        ("rl: dpo", "alpaca", "it is a type for training without rl"),
        ("rl: ipo", "chat_template.argilla", "it is a type for `rl: orpo`"),
        ("rl: kto", "chatml.icr", "it is a type for `rl: dpo`"),
        ("rl: orpo", "chatml.intel", "what works here: chat_template.argilla, orpo.chat_template"),
        ("reward_model: true", "bradley_terry.llama3.icr", "did you mean `bradley_terry.chat_template`"),
        ("process_reward_model: true", "my.rows", "what works: stepwise_supervised"),
    ],
)
def test_types_follow_what_is_trained(aim: str, kind: str, says: str) -> None:
    text = GOOD.replace("chat_template", kind) + aim + "\n"
    assert [(line, key) for line, key, rest in refused(text) if says in rest] == [(4, "datasets.0.type")]


@pytest.mark.parametrize(
    ("aim", "kind"),
    [
        *(("", kind) for kind in ("alpaca", "alpaca:phi", "alpaca_chat.load", "context_qa.load_404", "orcamini", "messages", "own.rows")),
        *(("rl: dpo", kind) for kind in ("chatml", "chatml.ultra", "chat_template", "passthrough", "zephyr.nectar", "own.pairs")),
        *(("rl: simpo", kind) for kind in ("llama3.icr", "chat_template.argilla_chat")),
        *(("rl: kto", kind) for kind in ("llama3.argilla", "chatml.argilla_chat")),
        *(("rl: orpo", kind) for kind in ("chat_template.argilla", "orpo.chat_template")),
        ("reward_model: true", "bradley_terry.chat_template"),
        ("process_reward_model: true", "stepwise_supervised"),
    ],
)
def test_types_of_what_is_trained_pass(aim: str, kind: str) -> None:
    text = GOOD.replace("chat_template", kind) + f"{aim}\nmicro_batch_size: 2\n" * bool(aim)
    assert check_source(parse(text, "params.yaml")).options.datasets[0].type == kind


def test_own_dataset_types_pass() -> None:
    assert (
        accepted(GOOD.replace("chat_template", "recipes.headlines.to_messages")).options.datasets[0].type == "recipes.headlines.to_messages"
    )
