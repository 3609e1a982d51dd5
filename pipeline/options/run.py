"""How a run starts, goes on and is extended."""

from __future__ import annotations

from pipeline.options.schema import Group, not_yet, option, refused


class Run(Group):
    """Read by train."""

    resume_from_checkpoint: str | None = option(
        None,
        "Folder of the checkpoint to go on from, instead of the newest one. Options, code and inputs must be those it was made with.",
        execution=True,
        min_length=1,
    )
    auto_resume_from_checkpoints: bool = option(
        True, "Go on from the newest checkpoint after an interruption; false starts anew.", execution=True
    )
    trainer_cls: str | None = not_yet("Dotted path of a trainer class of your own.")
    plugins: list[str] | None = not_yet("Dotted paths of plugin classes.", idle=([],))


class Invocation(Group):
    """Read by configure alone."""

    strict: bool | None = refused(
        "In Axolotl: whether the command line may add keys that the file lacks.", "unknown keys are always an error here", default=False
    )
    output_dir: str | None = option(
        None,
        "Folder in which `configure` links `trained`, `merged`, `quantized` and `eval` to the artifacts under data/. "
        "Nothing else in it is touched, and a link leads nowhere until its stage has run.",
        execution=True,
        min_length=1,
    )
    axolotl_config_path: str | None = refused("In Axolotl: where the config was loaded from.", "the loader sets it, not the file")
    is_preprocess: bool | None = refused(
        "In Axolotl: set while `preprocess` runs.", "a command sets it, not the file", "run `regrow tokenize`"
    )
