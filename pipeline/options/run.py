"""How a run starts, goes on and is extended."""

from __future__ import annotations

from pipeline.options.schema import Group, not_yet, option, refused


class Run(Group):
    """Read by train."""

    resume_from_checkpoint: str | None = not_yet("Folder of the checkpoint to go on from, instead of the newest one of the same identity.")
    auto_resume_from_checkpoints: bool | None = not_yet(
        "Go on from the newest checkpoint after an interruption. A killed run of the same identity always does; false is the wish not to.",
        idle=(True,),
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
