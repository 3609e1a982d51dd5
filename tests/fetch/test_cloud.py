"""Object stores, played by fsspec's store in memory under their schemes."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import MissingExtra, RegrowError
from stages.fetch import cloud, transfer
from tests.fetch.rows import fetch_rows


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A store whose addresses begin with s3://; ``failures`` are raised by the next reads."""

    protocol = "s3"
    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    failures: list[Exception] = []  # noqa: RUF012
    reads: list[int] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("s3://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **keywords: Any) -> bytes:
        self.reads.append(start or 0)
        if self.failures and start:
            raise self.failures.pop(0)
        return bytes(super().cat_file(path, start=start, end=end, **keywords))

    def info(self, path: str, **keywords: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **keywords)
        return found | ({"ETag": str(hash(self.store[self._strip_protocol(path)].getvalue()))} if found["type"] == "file" else {})


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(cloud, "_CHUNK", 8)
    monkeypatch.setitem(import_module("fsspec.registry")._registry, "s3", Bucket)
    store = Bucket()
    for attribute in (Bucket.store, Bucket.failures, Bucket.reads):
        attribute.clear()
    for name in ("train-1", "train-2", "test"):
        store.pipe_file(f"s3://mine/rows/{name}.jsonl", b'{"n": "%s"}\n' % name.encode())
    return store


def names(path: Path, source: str, **entry: Any) -> list[str]:
    return [row["n"] for row in fetch_rows(path, source, **entry).rows]


def test_a_file_a_folder_and_a_pattern(tmp_path: Path, bucket: Bucket) -> None:
    assert names(tmp_path, "s3://mine/rows/test.jsonl") == ["test"]
    assert names(tmp_path, "s3://mine/rows") == ["train-1", "train-2"]
    assert names(tmp_path, "s3://mine/rows/", split="test") == ["test"]
    assert names(tmp_path, "s3://mine/rows/t*[t2].jsonl") == ["test", "train-2"]


def test_a_file_is_pinned_and_a_folder_says_that_it_is_not(tmp_path: Path, bucket: Bucket) -> None:
    fetched = fetch_rows(tmp_path, "s3://mine/rows/test.jsonl")
    assert len(fetched.said) == 1 and "Add #sha256=" in fetched.said[0]
    pin = fetched.said[0].partition("#sha256=")[2][:64]
    assert fetch_rows(tmp_path, f"s3://mine/rows/test.jsonl#sha256={pin}").said == []
    with pytest.raises(RegrowError, match=r"and not 0{64} as stated"):
        fetch_rows(tmp_path, f"s3://mine/rows/test.jsonl#sha256={'0' * 64}")
    assert "s3://mine/rows has 3 files; later changes there go unnoticed" in fetch_rows(tmp_path, "s3://mine/rows").said[0]
    with pytest.raises(RegrowError, match="is not one file"):
        fetch_rows(tmp_path, f"s3://mine/rows#sha256={pin}")


def test_a_connection_that_breaks_is_continued(tmp_path: Path, bucket: Bucket) -> None:
    bucket.failures.append(ConnectionResetError("reset"))
    assert names(tmp_path, "s3://mine/rows/train-1.jsonl") == ["train-1"]
    assert bucket.reads == [0, 8, 8, 16]


def test_what_a_store_refuses_is_one_message(tmp_path: Path, bucket: Bucket) -> None:
    with pytest.raises(RegrowError, match=r"s3://mine/nothing is not there"):
        fetch_rows(tmp_path, "s3://mine/nothing")
    bucket.failures.append(PermissionError("Access Denied"))
    with pytest.raises(RegrowError, match=r"cannot be had: Access Denied\n.*credentials that s3fs looks for"):
        fetch_rows(tmp_path, "s3://mine/rows/train-1.jsonl")


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [("s3://b/x.jsonl", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gs"), ("abfss://b/x", "adlfs", "az"), ("oci://b@n/x", "ocifs", "oci")],
)
def test_a_store_without_its_package_names_the_extra(tmp_path: Path, source: str, package: str, extra: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingExtra, match=rf"datasets\[0\]\.path: {source} needs the package '{package}'[\s\S]*regrow\[{extra}\]"):
        fetch_rows(tmp_path, source)


def test_names_that_lead_out_are_refused(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.Store, "names", lambda self: {"../../out.jsonl": "s3://mine/rows/test.jsonl"})
    with pytest.raises(RegrowError, match=r"holds '\.\./\.\./out\.jsonl', a path that leads out of its folder"):
        fetch_rows(tmp_path, "s3://mine/rows")
