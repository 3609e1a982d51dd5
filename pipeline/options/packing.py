"""Several rows in one bin, and positions that skip (PoSE). Read by pack."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.options.schema import LARGEST, Group, Nested, option, refused

_PLANNED = "bins are planned once, over all rows, and stored"


class PackGroup(Nested):
    """Options of the pack stage that Axolotl has no key for."""

    minimum_efficiency: float = option(0.0, "Fail when a smaller share of the training bins' capacity is filled.", ge=0, le=1)


class Packing(Group):
    """Read by pack."""

    sample_packing: bool = option(
        False, "Put several rows in one bin of sequence_len, nearly the fewest possible; they never attend to each other."
    )
    pack: PackGroup = option(PackGroup(), "Options of the pack stage.")
    sample_packing_group_size: int | None = option(
        None,
        "Pack so many rows at a time, in their order; default all at once (Axolotl: 100000). Bins hold rows of one group.",
        ge=1,
        le=LARGEST,
    )
    sample_packing_bin_size: int | None = option(200, "Most rows in one bin; a large number lifts the limit.", ge=1, le=LARGEST)
    sample_packing_sequentially: bool = option(False, "Fill bins in the order of the rows, without looking for a better fit.")
    eval_sample_packing: bool = option(
        False,
        "Put several held-out rows in one bin too, in their order; eval judges each row on its own, whatever its bin. "
        "(Axolotl: true where sample_packing is.)",
    )
    sample_packing_mp_start_method: str | None = refused("How Axolotl starts the processes of its length estimate.", _PLANNED)
    sample_packing_eff_est: float | None = refused("Estimated fill, which Axolotl asks you to paste back.", _PLANNED)
    total_num_tokens: int | None = refused("Token count, which Axolotl asks you to paste back.", "tokens are counted")
    total_supervised_tokens: int | None = refused("Count of trained tokens, which Axolotl asks you to paste back.", "tokens are counted")


class PositionSkips(Group):
    """Read by pack. PoSE (arXiv 2309.10400): short rows stand for long ones by skips in their positions."""

    use_pose: bool = option(
        False, "Skip positions inside training rows, at random by the seed, to train for longer contexts than the rows have."
    )
    pose_max_context_len: int | None = option(None, "Context length to train for: the largest position is below it.", ge=2, le=LARGEST)
    pose_num_chunks: int | None = option(None, "Equal pieces of a row between which positions skip; default 2.", ge=2, le=LARGEST)
    pose_split_on_token_ids: list[Annotated[int, Field(ge=0)]] | None = option(
        None, "Skip before each of these tokens instead of between equal pieces."
    )
