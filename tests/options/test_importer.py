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
    result = imported(GOOD + "tf32: true\n", ())
    assert "tf32: true" in result.text
    assert [line.split(" — ")[0] for line in result.remaining] == ["params.yaml:7: tf32: true"]


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
    result = imported(GOOD, ("--eval.samples=3", "--learning_rate", "1e-5", "--quantize.formats=[int8]"))
    options = check_source(parse(result.text, "params.yaml")).options
    assert (options.eval.samples, options.learning_rate, options.quantize.formats) == (3, 1e-5, ["int8"])


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_importing_changes_no_meaning(path: Path) -> None:
    """What the examples ask for and regrow does not do yet is still asked for afterwards."""
    from tests.options.configs import PROBLEM

    text = path.read_text(encoding="utf-8")
    with pytest.raises(RegrowError) as caught:
        check_source(parse(text, "params.yaml"))
    wanted = {line.split(": ")[1].rpartition("(now ")[2].rstrip(")") for line in str(caught.value).splitlines() if "— refused" not in line}
    result = imported(text, ())
    told = [PROBLEM.fullmatch(line) for line in result.remaining]
    assert {match["key"] for match in told if match} == wanted
