"""Axolotl configs that are not verbatim become a clean params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.importer import Imported, import_config
from pipeline.options.json_schema import HEADER
from pipeline.options.reading.source import parse
from pipeline.options.recipe import check_source
from tests.options.configs import GOOD

AXOLOTL = """\
# Fine-tuning, third try
base_model: ${BASE:-HuggingFaceTB/SmolLM2-135M}

rows: &rows
  type: chat_template
  field_messages: conversations
# ours
datasets:
  - <<: *rows
    path: ${DATA}/a.jsonl
    message_field_role: from
    roles:
      user: [human, user]
test_datasets:
  - <<: *rows
    path: b.jsonl
strict: false
wandb_project:
learning_rate: 2e-4
lora_r: ${RANK}
adapter: lora
sdp_attention: yes  # fast enough
chat_template_jinja: |
  {% for message in messages %}
  {{ message['content'] }}
  {% endfor %}
eval.samples: 2
comet_api_key: ${COMET_API_KEY:-none}
"""

CLEAN = f"""\
{HEADER}
# Fine-tuning, third try
base_model: HuggingFaceTB/SmolLM2-135M
# ours
datasets:
  - path: data/a.jsonl
    roles:
      user: [human, user]
    type: chat_template
    field_messages: conversations
    message_property_mappings:
      role: from
test_datasets:
  - path: b.jsonl
    type: chat_template
    field_messages: conversations
learning_rate: 0.0002
lora_r: 16
adapter: lora
attn_implementation: sdpa
chat_template_jinja: |
  {{% for message in messages %}}
  {{{{ message['content'] }}}}
  {{% endfor %}}
eval:
  samples: 2
micro_batch_size: 4
sample_packing: true
train_on_inputs: false
"""


def imported(
    text: str = AXOLOTL, overrides: tuple[str, ...] = ("--micro-batch-size", "4", "--sample_packing", "--no-train-on-inputs")
) -> Imported:
    return import_config(text, "axolotl.yaml", {"DATA": "data", "RANK": "16"}, overrides)


def test_the_result_is_clean_and_runs() -> None:
    result = imported()
    assert result.text == CLEAN
    assert result.remaining == ()
    check_source(parse(result.text, "params.yaml"))


def test_every_change_is_told() -> None:
    told = "\n".join(imported().changes)
    for part in (
        "anchors and merges are written out",
        "comments behind values",
        "base_model: variables",
        "micro_batch_size: taken from the command line",
        "eval.samples is nested",
        "wandb_project: empty",
        "sdp_attention is now attn_implementation",
        "message_field_role is now datasets.0.message_property_mappings.role",
        "rows: removed",
        "strict: removed",
        "comet_api_key: removed; secrets",
    ):
        assert part in told


def test_a_clean_file_stays_as_it_is() -> None:
    again = import_config(CLEAN, "params.yaml", {})
    assert (again.text, again.changes, again.remaining) == (CLEAN, (), ())


def test_what_is_not_supported_stays_and_is_listed() -> None:
    result = imported(GOOD + "use_ray: true\n", ())
    assert "use_ray: true" in result.text
    assert [line.split(" — ")[0] for line in result.remaining] == ["params.yaml:7: use_ray: true"]


@pytest.mark.parametrize(
    ("text", "overrides", "match"),
    [
        (GOOD + "lora_r: ${NOT_SET}\n", (), "axolotl.yaml:6: .*NOT_SET"),
        (GOOD + "eager_attention: true\nattn_implementation: sdpa\n", (), "eager_attention"),
        (GOOD, ("lora r=3",), "override"),
        ("a: [\n", (), "not valid YAML"),
    ],
)
def test_what_cannot_be_imported_says_why(text: str, overrides: tuple[str, ...], match: str) -> None:
    with pytest.raises(RegrowError, match=match):
        imported(text, overrides)


def test_overrides_win_and_nest() -> None:
    result = imported(GOOD, ("--eval.samples=3", "--learning_rate", "1e-5", "--quantize=[int8]"))
    options = check_source(parse(result.text, "params.yaml")).options
    assert (options.eval.samples, options.learning_rate, options.quantize[0].weight_dtype) == (3, 1e-5, "int8")


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_importing_changes_no_meaning(path: Path) -> None:
    """What the examples ask for and regrow does not do yet is still asked for afterwards."""
    from tests.options.configs import PROBLEM

    text = path.read_text(encoding="utf-8")
    refusals: list[str] = []
    try:
        check_source(parse(text, "params.yaml"))
    except RegrowError as error:
        refusals = str(error).splitlines()
    wanted = {line.split(": ")[1].rpartition("(now ")[2].rstrip(")") for line in refusals if "— refused" not in line}
    result = imported(text, ())
    told = [PROBLEM.fullmatch(line) for line in result.remaining]
    assert {match["key"] for match in told if match} == wanted


def test_numbers_in_overrides_count_in_lists() -> None:
    result = imported(GOOD, ("--datasets.0.path", "c/d", "--datasets.0.roles.user=[human]"))
    entry = check_source(parse(result.text, "params.yaml")).options.datasets[0]
    assert (entry.path, entry.type, entry.roles) == ("c/d", "chat_template", {"user": ["human"]})


@pytest.mark.parametrize("flag", ["--datasets.1.path=x", "--datasets.path=x", "--datasets.-1.path=x"])
def test_an_override_of_no_item_is_refused(flag: str) -> None:
    with pytest.raises(RegrowError, match=r"there is no item.*\n.*a number from 0 to 0"):
        imported(GOOD, (flag,))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("8", 8), ("1e-4", 1e-4), ("true", True), ("a b", "a b"), ("8\nseed: 9", "8\nseed: 9"), ("8 # all", "8 # all"), ("a #b", "a #b")),
        *(
            ("[1, 2]", "[1, 2]"),
            ("{a: 1}", "{a: 1}"),
            ("'8'", "'8'"),
            ("|", "|"),
            ("&a 8", "&a 8"),
            ("!!str 8", "!!str 8"),
            ("a: b", "a: b"),
        ),
    ],
)
def test_a_variable_is_one_word_or_text(value: str, expected: object) -> None:
    result = import_config(GOOD + "revision_of_model: ${VALUE}\n", "a.yaml", {"VALUE": value})
    assert parse(result.text, "params.yaml").value["revision_of_model"] == expected


def test_an_override_is_never_cut() -> None:
    result = imported(GOOD, ("--base_model", "./a #b", "--revision_of_model='8'", "--tokenizer_config=8\nseed: 9"))
    values = parse(result.text, "params.yaml").value
    assert (values["base_model"], values["revision_of_model"], values["tokenizer_config"]) == ("./a #b", "8", "8\nseed: 9")
    assert "seed" not in values
