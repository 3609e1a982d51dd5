"""README.md of a trained model: what it was made from and how, as a Hugging Face model card.

Everything in it comes from the manifests of the inputs, the options and the metrics: no times, no paths of this machine, the same
bytes for the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel

from pipeline.artifact import Artifact
from pipeline.options.schema import facts_of, identifying
from pipeline.options.views import TrainOptions
from pipeline.source import is_hub_id
from stages.train.output.folder import kind_of

CARD = "README.md"
_USES = {"train": "training", "test": "evaluation", "against": "comparison: its rows are not trained"}
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")


def model_card(options: TrainOptions, inputs: Mapping[str, Artifact], metrics: Mapping[str, Any]) -> str:
    """The card: YAML header and Markdown.

    Args:
        options: those of train.
        inputs: the artifacts that train reads: base, tokenizer, tokens, packed.
        metrics: what the run found out, as :func:`stages.train.session.train` returns it.
    """
    sources = list(inputs["tokens"].content.get("sources", ()))
    header = yaml.safe_dump(_header(options, inputs["base"].content, sources), sort_keys=False, allow_unicode=True)
    parts = [
        _title(options, inputs["base"].content),
        _base(inputs),
        _data(inputs, sources),
        _training(options, metrics),
        _libraries(options),
    ]
    return f"---\n{header}---\n\n" + "\n".join(parts)


def _header(options: TrainOptions, base: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Only what is on the hub is named here: there these fields are links."""
    header: dict[str, Any] = {}
    if _on_hub(base.get("source"), base.get("revision")):
        header["base_model"] = base["source"]
        header["base_model_relation"] = "adapter" if kind_of(options) == "adapter" else "finetune"
    header["library_name"] = "peft" if kind_of(options) == "adapter" else "transformers"
    header["pipeline_tag"] = _pipeline(options)
    trained = (source for source in sources if source["split"] == "train")
    datasets = [str(source["path"]) for source in trained if _on_hub(source.get("path"), source.get("revision"))]
    if datasets:
        header["datasets"] = list(dict.fromkeys(datasets))
    return header | {"tags": ["regrow", options.adapter or "full-fine-tuning", _learned(options)]}


def _pipeline(options: TrainOptions) -> str:
    if options.reward_model:
        return "text-classification"
    return "token-classification" if options.process_reward_model else "text-generation"


def _learned(options: TrainOptions) -> str:
    judge = "reward-model" if options.reward_model else "process-reward-model" if options.process_reward_model else None
    return options.rl or judge or "sft"


def _on_hub(source: Any, revision: Any) -> bool:
    return isinstance(source, str) and revision is not None and is_hub_id(source)


def _title(options: TrainOptions, base: Mapping[str, Any]) -> str:
    name = _base_name(base)
    what = f"Adapter for {name}" if kind_of(options) == "adapter" else f"Fine-tuned {name}"
    return f"# {what}\n\nMade by regrow. Digests are SHA-256; log.csv has the course of the training, step by step.\n"


def _base_name(base: Mapping[str, Any]) -> str:
    """The model's own name: the last part of where it comes from, or its type."""
    source = base.get("source")
    return PurePath(str(source).partition("#")[0]).name if source else f"{base.get('model_type') or 'a'} model"


def _base(inputs: Mapping[str, Artifact]) -> str:
    base = inputs["base"]
    facts = {
        "source": base.content.get("source") or "a local folder",
        "revision": base.content.get("revision"),
        "type": base.content.get("model_type"),
        "digest": base.digest,
        "digest of the tokenizer": inputs["tokenizer"].digest,
    }
    return "## Base model\n\n" + _table(("", ""), [(name, _code(value)) for name, value in facts.items() if value is not None])


def _data(inputs: Mapping[str, Artifact], sources: Sequence[Mapping[str, Any]]) -> str:
    names = ("source", "file", "for", "revision", "type", "rows", "tokens", "trained tokens", "digest")
    rows = [_source_row(source) for source in sources]
    packed = inputs["packed"].content
    trained = packed.get("train", {})
    facts = {
        "digest of the tokens": inputs["tokens"].digest,
        "digest of the training plan's token stream": packed["content_digest"]["train"],
        "rows trained": trained.get("rows"),
        "rows held out": packed.get("eval", {}).get("rows"),
        "sequences": trained.get("bins"),
        "sequence_len": packed.get("sequence_len"),
        "sample_packing": packed.get("sample_packing"),
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    return f"## Data\n\n{_table(names, rows)}\n" + _table(("", ""), [(name, _code(value)) for name, value in facts.items()])


def _source_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    names = [source.get("revision"), source.get("type")]
    counts = [source.get(name) for name in ("rows", "tokens", "trained_tokens")]
    where = _without_folder(str(source["path"])), _without_folder(str(source["file"]))
    return (
        *(_code(name) for name in where),
        _USES[source["split"]],
        *("" if value is None else _code(value) for value in names),
        *("" if value is None else f"{value:,}" for value in counts),
        _code(source["sha256"]) if source.get("sha256") else "",
    )


def _training(options: TrainOptions, metrics: Mapping[str, Any]) -> str:
    changed = yaml.safe_dump(_changed(options), sort_keys=True, allow_unicode=True)
    results = [(name, _code(value)) for name, value in metrics.items() if value is not None and not isinstance(value, Mapping)]
    return f"## Training\n\n{_table(('', ''), results)}\nOptions of the training that are not the default:\n\n```yaml\n{changed}```\n"


def _changed(options: TrainOptions) -> dict[str, Any]:
    """Options whose value is not the default, secrets left out."""
    return {name: _shareable(value) for name, value in options.canonical().items() if _is_told(type(options), name, value)}


def _is_told(view: type[BaseModel], name: str, value: Any) -> bool:
    field = view.model_fields[name]
    default = identifying(field.get_default(call_default_factory=True, validated_data={}))
    return not facts_of(field).secret and (field.is_required() or value != default)


def _shareable(value: Any) -> Any:
    """Without the folders of this machine."""
    if isinstance(value, dict):
        return {name: _shareable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shareable(item) for item in value]
    return _without_folder(value) if isinstance(value, str) else value


def _without_folder(text: str) -> str:
    return PurePath(text).name if text.startswith(("/", "~")) else text


def _libraries(options: TrainOptions) -> str:
    wanted = [name for name in _LIBRARIES if name != "peft" or options.adapter]
    return "## Libraries\n\n" + "\n".join(f"- {name} {found}" for name, found in _installed(wanted)) + "\n"


def _installed(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Versions without local labels (``+cpu``), which tell of the machine."""
    for name in names:
        try:
            yield name, version(name).partition("+")[0]
        except PackageNotFoundError:
            continue


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(value: Any) -> str:
    """As it is, whatever it holds: a vertical line would end the cell."""
    return f"`{value}`".replace("|", "\\|").replace("\n", " ")
