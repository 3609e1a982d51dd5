"""What `regrow check`, `explain`, `schema` and the reference print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from pipeline.options.catalogue import catalogue
from pipeline.options.check import check, resolve
from pipeline.options.explain import explain, list_options
from pipeline.options.hardware import Machine, this_machine
from pipeline.options.json_schema import HEADER, json_schema, json_schema_text
from pipeline.options.reference import reference
from pipeline.options.rules import ADVICE, RULES
from pipeline.options.views import RecipeOptions
from tests.options.configs import GOOD, accepted
from tests.options.test_mutations import WHOLE, render

ROOT = Path(__file__).parents[2]
CPU, GPU = Machine(gpu=False, cpus=4), Machine(gpu=True, cpus=4)


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_check_says_so_when_all_is_well(tmp_path: Path) -> None:
    assert check(write(tmp_path, GOOD), machine=CPU).endswith("params.yaml: no problems.")


def test_check_warns_of_old_names_and_keys_without_effect(tmp_path: Path) -> None:
    told = check(write(tmp_path, GOOD + "sdp_attention: true\nlora_r: 4\n"), machine=CPU)
    assert "warning: params.yaml:6: sdp_attention" in told and "warning: params.yaml:7: lora_r" in told


def test_check_says_what_is_needed_and_not_here(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "fp16: true\n")
    assert "params.yaml:6: fp16: true needs a CUDA GPU" in check(path, machine=CPU)
    assert "needs" not in check(path, machine=GPU)
    bare = type("Bare", (Machine,), {"has_package": lambda self, name: False})()
    told = check(write(tmp_path, GOOD.replace("./base", "./model.gguf") + "quantize: [int8]\n"), machine=bare)
    assert "params.yaml:1: base_model" in told and "regrow[gguf]" in told
    assert "params.yaml:6: quantize.0.format" in told and "regrow[int8]" in told


def test_resolved_gives_every_value_and_why() -> None:
    found = {item.key: item for item in resolve(accepted(GOOD + "max_steps: 1000\nadapter: lora\n"), CPU)}
    assert (found["bf16"].value, found["bf16"].reason) == (False, "auto, and there is no GPU here: fp32")
    assert (found["learning_rate"].value, found["learning_rate"].reason) == (2e-4, "params.yaml:5")
    assert (found["sequence_len"].value, found["sequence_len"].reason) == (512, "default")
    assert (found["datasets.0.type"].value, found["datasets.0.roles_to_train"].value) == ("chat_template", ["assistant"])
    assert [found[key].value for key in ("warmup_steps", "logging_steps", "attn_implementation", "tokenizer_config")] == [
        30,
        5,
        "varlen where the architecture takes it, else sdpa or eager",
        "./base",
    ]
    leaves = {option.place.replace("datasets.", "datasets.0.") for option in catalogue().values() if option.facts.works}
    leaves -= {place for place in leaves if place.startswith("datasets.0.type.")}  # the type is no mapping here
    leaves -= {place for place in leaves if place.startswith("pretraining_dataset.")}  # nor is there such a list
    formats = {place for place in leaves if place.startswith("quantize.")}
    leaves |= {place.replace("quantize.", f"quantize.{index}.") for place in formats for index in range(2)}
    leaves -= formats | {"quantize"}
    groups_not_asked_for = (f"{name}." for name, field in RecipeOptions.model_fields.items() if field.default is None)
    unasked = ("dedupe.near.", "merge.others.", *(prefix for prefix in groups_not_asked_for if prefix != "special_tokens."))
    leaves -= {place for place in leaves if place.startswith(unasked)}  # nor is this asked for
    special = {place for place in leaves if place.startswith("special_tokens.")}
    groups = {"datasets", "fetch", "tokenize", "dedupe", "dedupe.overlap", "pack", "train", "merge", "eval", "eval.lm_eval"} | special
    assert found.keys() == leaves - groups


@pytest.mark.parametrize(
    ("steps", "warmup", "logging"), [(10, 0, 1), (40, 2, 1), (70, 2, 1), (100, 3, 1), (2000, 60, 10), (100_000, 100, 10)]
)
def test_warmup_and_logging_follow_the_steps(steps: int, warmup: int, logging: int) -> None:
    found = {item.key: item.value for item in resolve(accepted(GOOD + f"max_steps: {steps}\n"), CPU)}
    assert (found["warmup_steps"], found["logging_steps"]) == (warmup, logging)


def test_resolved_on_a_gpu() -> None:
    found = {item.key: item.value for item in resolve(accepted(GOOD), GPU)}
    assert str(found["bf16"]).startswith("true if the GPU has bf16")
    assert {item.key: item.value for item in resolve(accepted(GOOD + "fp16: true\n"), GPU)}["bf16"] is False


def test_no_gpu_is_seen_when_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not this_machine().gpu and this_machine().cpus >= 1


def test_explain_tells_all_of_an_option() -> None:
    told = explain("sample_packing")
    for part in (
        "never attend to each other",
        "true or false",
        "default   false",
        "works",
        "read by   pack",
        "reruns    pack; then",
        "pairs are not packed",
    ):
        assert part in told
    assert "datasets.type" in explain("type") and "pretraining_dataset.type" in explain("type")
    assert "not yet   unsloth" in explain("gradient_checkpointing")
    assert "write `lora_mlp_kernel`" in explain("unsloth_lora_mlp")
    assert explain("model_type").startswith("model_type\n  An old name of `type_of_model`.")
    assert "(it says how a stage runs, not what it writes)" in explain("dataset_num_proc")


def test_explain_lists_the_options_of_a_group() -> None:
    told = explain("eval")
    assert "default   that of each of its options" in told and "EvalGroup" not in told and "batch_size=" not in told
    assert [line.split(":")[0].strip() for line in told.splitlines() if line.startswith("    eval.")] == [
        f"eval.{name}" for name in ("lm_eval", "batch_size", "choices", "samples", "max_new_tokens")
    ]
    assert "    datasets.path: " in explain("datasets") and "    datasets.path: " in explain("test_datasets")
    assert "  options" not in explain("seed")


def test_every_option_can_be_explained() -> None:
    assert all(explain(place).startswith(place) for place in catalogue())


def test_every_rule_is_told_with_some_option() -> None:
    told = "\n".join(explain(place) for place in catalogue() if "." not in place)
    assert not [rule.__name__ for rule in (*RULES, *ADVICE) if rule.__name__.replace("_", " ") not in told]


def test_explain_knows_what_was_meant() -> None:
    with pytest.raises(RegrowError, match="sample_packing"):
        explain("sample_packin")
    with pytest.raises(RegrowError, match="newer Axolotl"):
        explain("liger_rope")
    with pytest.raises(RegrowError, match="lists all"):
        explain("qqqqqq")


def test_all_options_are_listed() -> None:
    words = set(list_options().replace(",", " ").split())
    assert RecipeOptions.model_fields.keys() <= words


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs/options.md").read_text(encoding="utf-8") == reference(), "write it again: regrow schema --docs > docs/options.md"


def test_the_reference_has_every_option_once() -> None:
    rows = [line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(catalogue())
    assert {line.count(" | ") for line in reference().splitlines() if line.startswith("| `")} == {5}


def test_the_json_schema_is_current() -> None:
    assert (ROOT / "params.schema.json").read_text(encoding="utf-8") == json_schema_text(), (
        "write it again: regrow schema > params.schema.json"
    )


def test_the_json_schema_says_what_editors_need() -> None:
    schema = json.loads(json_schema_text())
    properties = schema["properties"]
    assert RecipeOptions.model_fields.keys() <= properties.keys() and schema["additionalProperties"] is False
    assert sorted(schema["required"]) == ["base_model", "datasets", "learning_rate"]
    assert properties["deepcompile"]["deprecated"] and properties["deepcompile"]["description"].startswith("Not yet supported.")
    assert properties["unsloth_rope"]["description"].startswith("Refused: ") and properties["model_type"]["deprecated"]
    assert not [name for name, found in properties.items() if not found.get("description")]
    assert "deprecated" not in properties["sequence_len"] and properties["sequence_len"]["minimum"] == 2
    assert '"facts"' not in json_schema_text() and HEADER.endswith("params.schema.json")
    names = {reference["$ref"].split("/")[-1] for reference in _references(schema)}
    assert names <= schema["$defs"].keys()


def test_the_json_schema_takes_null_where_a_key_may_be_left_out() -> None:
    schema = json_schema()
    for name, found in schema["properties"].items():
        assert _takes_null(found) == (name not in schema["required"]), name
    entry = schema["$defs"]["DatasetEntry"]["properties"]
    assert {name for name, found in entry.items() if not _takes_null(found)} == {"path"}


def _takes_null(found: dict[str, Any]) -> bool:
    kinds = found.get("anyOf", [found])
    typed = any(("type" not in kind and "$ref" not in kind) or "null" in kind.get("type", ()) for kind in kinds)
    return typed and None in found.get("enum", [None])


def test_the_json_schema_refuses_what_asks_for_something() -> None:
    schema = json_schema()
    assert schema["properties"]["deepcompile"]["enum"] == [None, False]
    assert schema["properties"]["unsloth_rope"]["enum"] == [None, False]
    assert schema["properties"]["low_cpu_mem_usage"]["enum"] == [None, True]
    assert schema["$defs"]["DatasetEntry"]["properties"]["trust_remote_code"]["enum"] == [None, False]
    assert "enum" not in schema["properties"]["sdp_attention"] and schema["properties"]["sdp_attention"]["deprecated"]
    for option in catalogue().values():
        if option.facts.status == "refused" and "." not in option.place:
            assert schema["properties"][option.place]["enum"][0] is None and schema["properties"][option.place]["deprecated"]


def _references(node: object) -> list[dict[str, str]]:
    if isinstance(node, dict):
        return [found for value in node.values() for found in _references(value)] + ([node] if "$ref" in node else [])
    return [found for item in node for found in _references(item)] if isinstance(node, list) else []


def test_json_schema_is_the_same_every_time() -> None:
    assert json_schema() == json_schema()


def test_checking_is_quick_and_light(tmp_path: Path) -> None:
    """60 lines in a new process: under 1.5 s of CPU, and none of the heavy libraries."""
    text = render({key: value for key, value in WHOLE.items() if key != "chat_template"} | {"chat_template_jinja": "{{ messages }}"})
    assert len(text.splitlines()) >= 60
    code = "import sys, pathlib; from pipeline.options.check import check; print(check(pathlib.Path(sys.argv[1]), resolved=True))"
    arguments = [sys.executable, "-X", "importtime", "-c", code, str(write(tmp_path, text))]
    before = _children()
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert _children() - before < 1.5, "CPU seconds"
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in loaded and not loaded & {"torch", "transformers", "datasets", "trl", "numpy", "pyarrow", "peft"}
    assert "no problems" in done.stdout


def _children() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
