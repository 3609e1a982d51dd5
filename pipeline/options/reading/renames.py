"""Old names: their values move to the new ones, each with a warning, before anything is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.options.reading.problems import MISSING, Problem, dotted
from pipeline.options.reading.source import Place, Source
from pipeline.options.reading.validation import value_at

SIMPLE = {
    "dataset_processes": "dataset_num_proc",
    "pretrain_multipack_buffer_size": "streaming_multipack_buffer_size",
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "dpo_beta": "rl_beta",
    "evaluation_strategy": "eval_strategy",
    "sequence_parallel_degree": "context_parallel_size",
    "fsdp_config.activation_checkpointing": "gradient_checkpointing",
    "fsdp_final_state_dict_type": "fsdp_config.final_state_dict_type",
    "rope_scaling": "overrides_of_model_config.rope_scaling",
    "trl.use_liger_loss": "trl.use_liger_kernel",
    "model_config": "overrides_of_model_config",
    "model_kwargs": "overrides_of_model_kwargs",
    "model_type": "type_of_model",
    "model_revision": "revision_of_model",
}
"""Old place to new place. The last four are names that Axolotl takes besides those of its reference."""

SWITCHES = {
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "flash_attention": "flash_attention_2",
    "flex_attention": "flex_attention",
    "xformers_attention": "xformers",
}
"""Old truth values and the ``attn_implementation`` they stand for."""

_ENTRY_KEYS = {"message_field_role": "role", "message_field_content": "content"}
_ENTRY_LISTS: tuple[Place, ...] = (("datasets",), ("test_datasets",), ("pretraining_dataset",), ("dedupe", "against"))


@dataclass
class Renaming:
    """A file while its old names are replaced. ``source`` and its values are changed in place."""

    source: Source
    warnings: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def move(self, old: Place, new: Place, value: Any = MISSING) -> None:
        """Take ``old`` away and give its value (or ``value``) to ``new``, unless that has another one."""
        given = value_at(self.source.value, old)
        wanted = given if value is MISSING else value
        present = value_at(self.source.value, new)
        if present is not MISSING and present != wanted:
            self.problems.append(Problem(old, given, f"an old name of `{dotted(new)}`, which is set too", f"remove `{dotted(old)}`"))
        elif self._put(new, wanted, old):
            self.warnings.append(Problem(old, given, f"an old name of `{dotted(new)}`", "`regrow import` writes the new one"))
        else:
            return
        self.remove(old)

    def remove(self, path: Place) -> None:
        """Take a key away."""
        parent = value_at(self.source.value, path[:-1])
        if isinstance(parent, dict):
            parent.pop(path[-1], None)

    def _put(self, path: Place, value: Any, old: Place) -> bool:
        holder = self.source.value
        for part in path[:-1]:
            holder = holder.setdefault(part, {}) if isinstance(holder, dict) else holder[part]
        if not isinstance(holder, dict):
            return False
        holder[path[-1]] = value
        self.source.lines[path] = self.source.line(old)
        self.source.old_names[path] = old
        return True


def apply_renames(source: Source) -> Renaming:
    """Replace every old name in ``source``. What cannot be replaced stays and is refused by the checks that follow."""
    renaming = Renaming(source)
    _prefixes(renaming)
    for old, new in SIMPLE.items():
        if value_at(source.value, tuple(old.split("."))) is not MISSING:
            renaming.move(tuple(old.split(".")), tuple(new.split(".")))
    for switch, implementation in SWITCHES.items():
        _switch(renaming, switch, ("attn_implementation",), implementation)
    _switch(renaming, "dpo_norm_loss", ("dpo_loss_type",), "sigmoid_norm")
    _weighted_likelihood(renaming)
    _collection(renaming)
    _entries(renaming)
    return renaming


def _switch(renaming: Renaming, old: str, new: Place, value: str) -> None:
    given = renaming.source.value.get(old)
    if given is True:
        renaming.move((old,), new, value)
    elif given is False:
        renaming.remove((old,))


def _weighted_likelihood(renaming: Renaming) -> None:
    alpha = renaming.source.value.get("rpo_alpha")
    if isinstance(alpha, int | float) and not isinstance(alpha, bool):
        # TRL's replacement of rpo_alpha: the sum of the sigmoid loss and alpha times the likelihood of the better answer.
        _several(renaming, "rpo_alpha", {"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0, float(alpha)]})


def _collection(renaming: Renaming) -> None:
    steps = renaming.source.value.get("gc_steps")
    if isinstance(steps, int) and not isinstance(steps, bool):
        _several(renaming, "gc_steps", {"torch_empty_cache_steps": steps, "gc_collect_steps": steps})


def _several(renaming: Renaming, old: str, new: dict[str, Any]) -> None:
    given = renaming.source.value[old]
    for key, value in new.items():
        renaming.source.value[old] = given
        renaming.move((old,), (key,), value)


def _entries(renaming: Renaming) -> None:
    for name in _ENTRY_LISTS:
        entries = value_at(renaming.source.value, name)
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            for old, key in _ENTRY_KEYS.items():
                if isinstance(entry, dict) and old in entry:
                    renaming.move((*name, index, old), (*name, index, "message_property_mappings", key))


def _prefixes(renaming: Renaming) -> None:
    """Axolotl takes the keys of fsdp_config with and without the prefix that accelerate gives them."""
    config = renaming.source.value.get("fsdp_config")
    for key in list(config) if isinstance(config, dict) else []:
        if str(key).startswith("fsdp_"):
            new: Place = ("fsdp_version",) if key == "fsdp_version" else ("fsdp_config", str(key).removeprefix("fsdp_"))
            renaming.move(("fsdp_config", key), new)
