"""The config.json of ``data/base`` where it is not the base model's own: from elsewhere, as another class, with other attributes.

It is written here, so that training, merging and evaluation all see the same model.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from shutil import copyfile
from typing import Any

from pipeline.errors import RegrowError
from pipeline.json_object import read_object
from pipeline.options.views import FetchOptions
from stages.fetch.locate import Located, Locator, Wanted, listed

_ROPE = ("rope_scaling", "rope_theta")


def locate_config(options: FetchOptions, locator: Locator) -> Located | None:
    """The config.json that `base_model_config` names, or None where it comes with the base model."""
    if options.base_model_config in (None, options.base_model):
        return None
    wanted = Wanted("base_model_config", "config", str(options.base_model_config), "model")
    located = locator.locate(wanted, lambda names: [name for name in names if name == "config.json"])
    if not located.files:
        raise RegrowError(f"base_model_config {wanted.text!r} has no config.json.", "Name a folder or a hub id of a model.")
    return located


def write_config(options: FetchOptions, source: Located | None, path: Path) -> bool:
    """Rewrite the config.json at ``path`` as the options ask; whether they asked for anything.

    Raises:
        RegrowError: a class or an attribute that there is not, or a value that the model's type does not take.
    """
    overrides = options.overrides_of_model_config or {}
    if source is None and options.cls_model_config in (None, "AutoConfig") and not overrides:
        return False
    if source is not None:
        copyfile(source.root / "config.json", path)
    config = _read(path)
    if options.cls_model_config not in (None, "AutoConfig"):
        config["model_type"] = _class(str(options.cls_model_config)).model_type
        _write(path, config)
    if overrides:
        _check_known(open_config(path, "base_model"), overrides)
        _write(path, _changed(config, overrides))
        _check_kept(open_config(path, "overrides_of_model_config"), overrides)
    return True


def _write(path: Path, config: dict[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_config(path: Path, what: str) -> Any:
    """config.json as transformers reads it. Code that comes with a model is never run.

    Raises:
        RegrowError: not a model that transformers knows, or with values that its type does not take.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path.parent, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, StrictDataclassError) as error:
        reason = " ".join(line.strip() for line in (str(error).strip() or type(error).__name__).splitlines()[:2])
        raise RegrowError(
            f"{what}: its config.json cannot be opened: {reason}", "It must be of a model type that this version of transformers knows."
        ) from None


def _read(path: Path) -> dict[str, Any]:
    return read_object(path, path.name, "Download it again.")


def _class(name: str) -> Any:
    import transformers

    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedConfig) and found.model_type):
        near = get_close_matches(name, [known for known in dir(transformers) if known.endswith("Config")], 1)
        raise RegrowError(
            f"cls_model_config: transformers has no config class {name!r}{f'; did you mean {near[0]!r}?' if near else '.'}",
            "Write a name such as LlamaConfig, or leave it out: the config's own model_type says it.",
        )
    return found


def _check_known(config: Any, overrides: dict[str, Any]) -> None:
    known = config.to_dict().keys() | {"rope_scaling", "rope_theta"}
    for key in overrides:
        if key not in known and not hasattr(config, key):
            near = get_close_matches(key, sorted(known), 1)
            raise RegrowError(
                f"overrides_of_model_config: a config of type {config.model_type} has no attribute {key!r}"
                f"{f'; did you mean {near[0]!r}?' if near else '.'}",
                f"It has {listed(sorted(known), 40)}.",
            )


def _changed(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions stand in one object, ``rope_parameters``, in which transformers 5 alone looks where a file has it."""
    changed = config | {key: value for key, value in overrides.items() if key not in _ROPE}
    rope = changed.get("rope_parameters")
    if not isinstance(rope, dict):
        changed |= {key: overrides[key] for key in _ROPE if key in overrides}
        return changed
    scaling = dict(overrides.get("rope_scaling") or {})
    if scaling:
        changed.pop("rope_scaling", None)
        kind = scaling.pop("rope_type", scaling.pop("type", "default"))
        rope = {"rope_theta": rope["rope_theta"]} | scaling | {"rope_type": kind} if "rope_theta" in rope else scaling | {"rope_type": kind}
    if "rope_theta" in overrides:
        rope = rope | {"rope_theta": overrides["rope_theta"]}
    changed["rope_parameters"] = rope
    return changed


def _check_kept(config: Any, overrides: dict[str, Any]) -> None:
    """What transformers reads is what was written: it silently passes over some values."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if "rope_scaling" in overrides and kind not in (*ROPE_INIT_FUNCTIONS, "default"):
        raise RegrowError(
            f"overrides_of_model_config.rope_scaling: transformers has no rope_type {kind!r}.",
            f"It has default, {', '.join(sorted(ROPE_INIT_FUNCTIONS))}.",
        )
    found = {key: rope.get(key) if key == "rope_theta" else getattr(config, key, None) for key in overrides if key != "rope_scaling"}
    found |= {f"rope_scaling.{key}": rope.get(key) for key in overrides.get("rope_scaling") or {}}
    wanted = {key: value for key, value in overrides.items() if key != "rope_scaling"}
    wanted |= {f"rope_scaling.{key}": value for key, value in (overrides.get("rope_scaling") or {}).items()}
    for key, value in wanted.items():
        if found[key] != value and not key.endswith(".type"):
            raise RegrowError(
                f"overrides_of_model_config.{key}: {value!r} is not what a model of type {config.model_type} takes it as ({found[key]!r}).",
                "Correct the value, or remove it.",
            )
