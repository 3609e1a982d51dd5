"""Downloads from a server on this machine: pinned, continued, tried again, and clear when they cannot be had."""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from stages.fetch import transfer
from tests.fetch.made import Heard
from tests.fetch.rows import Fetched, fetch_rows

BODY = b"".join(b'{"n": %d}\n' % number for number in range(20000))
DIGEST = hashlib.sha256(BODY).hexdigest()


class Site(ThreadingHTTPServer):
    """Serves BODY at any path, and misbehaves as it is told.

    Attributes:
        cuts: after how many bytes to hang up, for the next requests.
        answers: statuses to give instead, for the next requests.
        encoding: how it says that the body is packed.
        etag: the version it tells; None: it knows of none, and of no ranges.
        asked: path and Range of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.location = BODY, '"one"', ""
        self.encoding = ""
        self.cuts: list[int] = []
        self.answers: list[int] = []
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/rows.jsonl"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers["Range"]
        site.asked.append((self.path, wanted))
        if site.answers:
            self.send_response(site.answers.pop(0))
            if site.location:
                self.send_header("Location", site.location)
            self.send_header("Content-Range", "bytes 5-12/13")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted and site.etag and self.headers["If-Range"] == site.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
        body = site.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.encoding:
            self.send_header("Content-Encoding", site.encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # this machine's own servers are asked directly
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_comes_whole_and_is_pinned(tmp_path: Path, site: Site) -> None:
    pinned = fetch_rows(tmp_path, f"{site.url}#sha256={DIGEST}")
    assert pinned.raw == [BODY] and pinned.files == ["rows.jsonl"] and pinned.said == []
    unpinned = fetch_rows(tmp_path, site.url)
    assert unpinned.raw == [BODY]
    assert unpinned.said == [
        f"datasets[0].path: {site.url} is not pinned: {len(BODY)} bytes, and later changes go unnoticed. Add #sha256={DIGEST} to pin it."
    ]
    with pytest.raises(RegrowError, match=rf"{site.url} has SHA-256 {DIGEST}, and not 0{{64}} as stated"):
        fetch_rows(tmp_path, f"{site.url}#sha256={'0' * 64}")


def test_other_formats_and_selections_work_from_the_web(tmp_path: Path, site: Site) -> None:
    site.body = gzip.compress(b"a,b\n1,x\n2,y\n", mtime=0)
    url = site.url.replace("rows.jsonl", "rows.csv.gz?download=true")
    assert fetch_rows(tmp_path, url, split="train[1:]").rows == [{"a": 2, "b": "y"}]


def test_a_connection_that_breaks_is_continued(tmp_path: Path, site: Site) -> None:
    site.cuts = [1000, 5000]
    fetched = fetch_rows(tmp_path, f"{site.url}#sha256={DIGEST}")
    assert fetched.raw == [BODY]
    assert [wanted for _, wanted in site.asked] == [None, "bytes=1000-", "bytes=6000-"]
    assert any(re.search(r"the connection .*; trying again in 0 s", text) for text in fetched.said)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_it_starts_again(tmp_path: Path, site: Site, etag: str | None) -> None:
    site.cuts, site.etag = [1000], etag  # type: ignore[assignment]
    assert fetch_rows(tmp_path, site.url).raw == [BODY]
    assert [wanted for _, wanted in site.asked] == [None, None]


def test_a_file_that_changes_meanwhile_is_never_mixed(tmp_path: Path, site: Site) -> None:
    site.cuts = [1000]
    original = site.asked

    class Changing(list[tuple[str, str | None]]):
        def append(self, item: tuple[str, str | None]) -> None:
            if item[1] is not None:
                site.body, site.etag = b'{"new": 1}\n', '"two"'
            super().append(item)

    site.asked = Changing(original)
    assert fetch_rows(tmp_path, site.url).raw == [b'{"new": 1}\n']


def test_a_killed_run_is_continued_by_the_next(tmp_path: Path, site: Site) -> None:
    site.cuts = [1000, 0, 0, 0]
    with pytest.raises(RegrowError, match=r"the connection .*\n.*run it again: what has arrived is kept"):
        _fetch_at(tmp_path, site.url)
    site.asked.clear()
    _fetch_at(tmp_path, f"{site.url}#sha256={DIGEST}")
    assert [wanted for _, wanted in site.asked] == ["bytes=1000-"]
    site.asked.clear()
    _fetch_at(tmp_path, f"{site.url}#sha256={DIGEST}")
    assert site.asked == []


def _fetch_at(place: Path, url: str) -> None:
    from pipeline.artifact import Draft
    from pipeline.options.views import FetchOptions
    from stages.fetch.locate import Locator
    from stages.fetch.rows import write_rows
    from tests.fetch.made import Heard

    options = FetchOptions.model_validate({"base_model": "x", "datasets": [{"path": url}]})
    write_rows(options, Locator(place / "links", place / "scratch", Heard()), Draft("raw", place / "raw"))


def test_a_new_version_never_names_the_bytes_of_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, version = tmp_path / "x.part", tmp_path / "x.version"
    part.write_bytes(b"old")
    version.write_text("old")
    seen: list[bytes] = []
    note = transfer._note
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)

    def noted(file: Path, text: str | None) -> None:
        note(file, text)
        seen.append(part.read_bytes())

    monkeypatch.setattr(transfer, "_note", noted)
    with pytest.raises(RegrowError):
        transfer.Transfers(Heard(), 1).receive(lambda offset, old: nullcontext(transfer.Answer(0, 9, "new", iter([]))), tmp_path / "x", "x")
    assert set(seen) == {b""} and version.read_text() == "new"


def test_a_part_that_is_no_beginning_is_thrown_away(tmp_path: Path, site: Site) -> None:
    site.cuts, site.answers = [1000], []
    original = site.asked

    class Strict(list[tuple[str, str | None]]):
        def append(self, item: tuple[str, str | None]) -> None:
            if item[1] is not None:
                site.answers = [416]
            super().append(item)

    site.asked = Strict(original)
    assert fetch_rows(tmp_path, site.url).raw == [BODY]
    assert [wanted for _, wanted in site.asked] == [None, "bytes=1000-", None]


def test_a_busy_server_is_asked_again_and_three_times_is_enough(tmp_path: Path, site: Site) -> None:
    site.answers = [503, 429, 500]
    assert fetch_rows(tmp_path, site.url).raw == [BODY]
    site.answers = [503] * 4
    with pytest.raises(RegrowError, match=r"datasets\[0\]\.path: http.*cannot be had: the server answers 503"):
        fetch_rows(tmp_path, site.url)


@pytest.mark.parametrize("retries", [0, 5])
def test_how_often_it_is_tried_again_can_be_chosen(tmp_path: Path, site: Site, retries: int) -> None:
    site.answers = [503] * retries
    assert fetch_rows(tmp_path, site.url, more={"fetch": {"retries": retries}}).raw == [BODY]
    site.answers = [503] * (retries + 1)
    with pytest.raises(RegrowError, match=r"(?s)answers 503.*fetch\.retries"):
        fetch_rows(tmp_path, site.url, more={"fetch": {"retries": retries}})


@pytest.mark.parametrize(("status", "message"), [(404, "is not there: 404"), (403, "is not open to everybody: 403"), (401, "not open")])
def test_what_the_server_refuses_is_one_message(tmp_path: Path, site: Site, status: int, message: str) -> None:
    site.answers = [status]
    with pytest.raises(RegrowError, match=message):
        fetch_rows(tmp_path, site.url)
    assert len(site.asked) == 1


def test_an_address_that_leads_to_an_open_one_is_not_followed(tmp_path: Path, site: Site) -> None:
    site.answers, site.location = [302], "http://example.com/rows.jsonl"
    with pytest.raises(RegrowError, match=r"leads to http://example\.com/rows\.jsonl, which is not https"):
        fetch_rows(tmp_path, site.url)
    site.answers, site.location = [302], site.url
    assert fetch_rows(tmp_path, site.url.replace("rows", "other")).raw == [BODY]


def test_an_address_that_leads_nowhere_is_one_message(tmp_path: Path, site: Site) -> None:
    site.answers, site.location = [302] * 12, site.url
    with pytest.raises(RegrowError, match=r"is not there: 302 .* infinite loop"):
        fetch_rows(tmp_path, site.url)
    site.answers, site.location = [302], "http://[bad"
    with pytest.raises(RegrowError, match="leads to an address that is none"):
        fetch_rows(tmp_path, site.url)
    site.answers, site.location = [302], "http://me:secret@example.com/x?X-Amz-Signature=secret"
    with pytest.raises(RegrowError, match=r"leads to .*example\.com") as caught:
        fetch_rows(tmp_path, site.url)
    assert "secret" not in str(caught.value)


def test_a_part_that_nobody_asked_for_is_not_taken_for_the_whole(tmp_path: Path, site: Site) -> None:
    site.answers = [206] * 4
    with pytest.raises(RegrowError, match="another part of the file was sent than was asked for"):
        fetch_rows(tmp_path, site.url)


def test_names_in_an_address_are_escaped_as_needed(tmp_path: Path, site: Site) -> None:
    assert fetch_rows(tmp_path, site.url.replace("rows", "mes données%20")).raw == [BODY]
    assert site.asked[0][0] == "/mes%20donn%C3%A9es%20.jsonl"


def test_what_comes_packed_is_unpacked_or_refused(tmp_path: Path, site: Site) -> None:
    site.body, site.encoding = gzip.compress(BODY, mtime=0), "gzip"
    assert fetch_rows(tmp_path, site.url).raw == [BODY]
    site.encoding = "br"
    with pytest.raises(RegrowError, match="comes packed as br"):
        fetch_rows(tmp_path, site.url)


def test_without_a_server_it_fails_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    with pytest.raises(RegrowError, match=r"http://127\.0\.0\.1:9/rows\.jsonl cannot be had: the server cannot be reached.*\n.*network"):
        fetch_rows(tmp_path, "http://127.0.0.1:9/rows.jsonl")


def test_nothing_of_a_download_is_left_in_the_artifact(tmp_path: Path, site: Site) -> None:
    fetched: Fetched = fetch_rows(tmp_path, site.url)
    assert [path.name for path in fetched.folder.rglob("*") if path.is_file()] == ["00000.jsonl"]
