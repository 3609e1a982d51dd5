"""Which files of a source make the model and which the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.views import FetchOptions
from stages.fetch.locate import Choose, Located, Locator, Wanted, listed

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
CONFIGS = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SAFE = (
    "Convert them once with transformers (`model.save_pretrained(folder)` writes safetensors), or choose a model that ships safetensors."
)


def locate_model(options: FetchOptions, locator: Locator) -> Located:
    """The base model's files: safetensors with config.json, or one GGUF file; with the tokenizer's files that lie beside."""
    wanted = Wanted("base_model", "base", options.base_model, "model", options.revision_of_model, "revision_of_model")
    return locator.locate(wanted, _model_chooser(wanted, not options.reinit_weights, options.base_model_config is None))


def locate_tokenizer(options: FetchOptions, locator: Locator) -> Located | None:
    """The files that `tokenizer_config` names, or None where the tokenizer comes with the base model."""
    if options.tokenizer_config in (None, options.base_model):
        return None
    wanted = Wanted("tokenizer_config", "tokenizer", str(options.tokenizer_config), "model")
    return locator.locate(wanted, lambda names: tokenizer_files(names, wanted))


def gguf_of(located: Located) -> str | None:
    """The one GGUF file that a source consists of, or None.

    Raises:
        MissingExtra: it is one, and the library that reads it is not installed.
    """
    if len(located.files) != 1 or not located.files[0].endswith(".gguf"):
        return None
    if find_spec("gguf") is None:
        raise MissingExtra(f"{located.wanted.option} {located.wanted.text!r}", "gguf", "gguf")
    return located.files[0]


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names that a pattern matches, in their order."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def tokenizer_files(names: Sequence[str], wanted: Wanted) -> list[str]:
    """The tokenizer's files, or the one GGUF file that holds it.

    Raises:
        RegrowError: there is no tokenizer.json.
    """
    if "tokenizer.json" in names:
        return matching(names, TOKENIZER)
    if len(gguf := matching(names, ("*.gguf",))) == 1:
        return gguf
    raise RegrowError(
        f"{wanted.option} {wanted.text!r} has no tokenizer.json (there are {listed(names)}).",
        "Name a source with a fast tokenizer in tokenizer_config: a folder, hub id or wheel folder with tokenizer.json, or a GGUF file.",
    )


def _model_chooser(wanted: Wanted, needs_weights: bool, needs_config: bool) -> Choose:
    def choose(names: Sequence[str]) -> list[str]:
        if "config.json" in names and not needs_weights:
            return matching(names, (*CONFIGS, *TOKENIZER))
        gguf = matching(names, ("*.gguf",))
        weights = matching(names, ("model*.safetensors",))
        if weights and ("config.json" in names or not needs_config):
            return matching(names, (*CONFIGS, *WEIGHTS, *TOKENIZER))
        if len(gguf) == 1 and not weights:
            return gguf
        raise _unusable(wanted, names, gguf, weights)

    return choose


def _unusable(wanted: Wanted, names: Sequence[str], gguf: Sequence[str], weights: Sequence[str]) -> RegrowError:
    what = f"{wanted.option} {wanted.text!r}"
    if len(gguf) > 1:
        return RegrowError(f"{what} holds several GGUF files: {listed(gguf)}.", "Name one of them, with its path.")
    if not weights and (pickles := matching(names, _PICKLES)):
        return RegrowError(
            f"{what} has its weights in pickle files ({listed(pickles)}), which can run any code when opened; safetensors is needed.", _SAFE
        )
    missing = "model*.safetensors" if "config.json" in names else "config.json"
    remedy = "A model is a folder with config.json and model*.safetensors, or one GGUF file."
    return RegrowError(f"{what} has no {missing} (there are {listed(names)}).", remedy)
