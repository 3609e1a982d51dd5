"""Several rows in one bin, and positions that skip (PoSE). Read by pack."""

from __future__ import annotations

from pipeline.options.schema import Group, Nested, not_yet, option, refused

_PLANNED = "bins are planned once, over all rows, and stored"


class PackGroup(Nested):
    """Options of the pack stage that Axolotl has no key for."""

    minimum_efficiency: float = option(0.0, "Fail when a smaller share of the training bins' capacity is filled.", ge=0, le=1)


class Packing(Group):
    """Read by pack."""

    sample_packing: bool = option(False, "Put several rows in one bin of sequence_len; they never attend to each other.")
    pack: PackGroup = option(PackGroup(), "Options of the pack stage.")
    sample_packing_group_size: int | None = refused("Rows that Axolotl packs together.", _PLANNED, default=100000)
    sample_packing_bin_size: int | None = not_yet("Most rows in one bin.", 200, idle=(), ge=1)
    sample_packing_sequentially: bool = option(False, "Fill bins in the order of the rows, without looking for a better fit.")
    eval_sample_packing: bool = option(
        False, "Put several held-out rows in one bin too, in their order; eval judges each row on its own, whatever its bin."
    )
    sample_packing_mp_start_method: str | None = refused("How Axolotl starts the processes of its length estimate.", _PLANNED)
    sample_packing_eff_est: float | None = refused("Estimated fill, which Axolotl asks you to paste back.", _PLANNED)
    total_num_tokens: int | None = refused("Token count, which Axolotl asks you to paste back.", "tokens are counted")
    total_supervised_tokens: int | None = refused("Count of trained tokens, which Axolotl asks you to paste back.", "tokens are counted")


class PositionSkips(Group):
    """Read by pack. PoSE (arXiv 2309.10400): short rows stand for long ones by skips in their positions."""

    use_pose: bool | None = not_yet("Skip positions inside rows, to train for longer contexts than the rows have.")
    pose_max_context_len: int | None = not_yet("Context length to train for.", idle=(), ge=2)
    pose_num_chunks: int | None = not_yet("Pieces between which positions skip; default 2.", idle=(), ge=1)
    pose_split_on_token_ids: list[int] | None = not_yet("Skip before these tokens instead of at equal distances.", idle=([],))
