"""An error that one process raises is the same error in another."""

from __future__ import annotations

import copy

import pytest

from pipeline.errors import Interrupted, MissingExtra, RegrowError, StaleInput


@pytest.mark.parametrize(
    "error",
    [
        RegrowError("wrong"),
        RegrowError("wrong", "right"),
        StaleInput("old", "again"),
        Interrupted("stop"),
        MissingExtra("datasets[0]", "s3fs", "s3"),
    ],
)
def test_errors_survive_being_sent(error: RegrowError) -> None:
    sent = copy.copy(error)  # by the same protocol as a pickle
    assert type(sent) is type(error)
    assert (str(sent), sent.message, sent.remedy, sent.args, sent.exit_code) == (
        *(str(error), error.message, error.remedy, error.args, error.exit_code),
    )
