"""Files of rows: cut, damaged, named wrongly, of other kinds than files. All rows of a file arrive, or it is refused by its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fetch.rows import fetch_project
from tests.fuzz.damage import damaged_bytes
from tests.fuzz.judge import Rows, Tried, judge

ROWS: list[dict[str, Any]] = [
    {"text": f"row {number} é", "n": number, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": str(number)}]}
    for number in range(25)
]
FLAT = [{"text": row["text"], "n": row["n"]} for row in ROWS]


def _jsonl() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def _csv() -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["text", "n"])
    writer.writeheader()
    writer.writerows({**row, "text": f'{row["text"]}, "quoted"\nline'} for row in FLAT)
    return stream.getvalue().encode()


def _arrow(stream: bool) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return bytes(sink.getvalue())


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=7)
    return sink.getvalue()


def _zst(raw: bytes) -> bytes:
    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


def _zip(raw: bytes, name: str = "rows.jsonl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, raw)
    return stream.getvalue()


def _tar(raw: bytes, name: str = "rows.jsonl") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


WHOLE: dict[str, bytes] = {
    "rows.jsonl": _jsonl(),
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "rows.csv": _csv(),
    "rows.txt": "".join(f"{row['text']}\n" for row in FLAT).encode(),
    "rows.parquet": _parquet(),
    "file.arrow": _arrow(stream=False),
    "stream.arrow": _arrow(stream=True),
    "rows.jsonl.gz": gzip.compress(_jsonl(), mtime=0),
    "rows.jsonl.zst": _zst(_jsonl()),
    "rows.csv.gz": gzip.compress(_csv(), mtime=0),
    "array.json.zst": _zst(json.dumps(ROWS).encode()),
}
"""Files that are right, by name; each holds as many rows as :data:`ROWS`."""

CUT_SHOWS = ("array.json", "pretty.json", "rows.parquet", "file.arrow", "stream.arrow", ".gz", ".zst")
"""Formats in which a cut can be told: then the file must be refused, and not taken for a shorter one."""

Made = tuple[str, dict[str, Any], int | None]
"""The path for params.yaml, further keys of the dataset entry, and how many rows must arrive (None: any number, or a refusal)."""


def _cut(folder: Path, rng: Random) -> Made:
    name = rng.choice(list(WHOLE))
    raw = WHOLE[name]
    place = rng.randrange(len(raw))
    (folder / name).write_bytes(raw[:place])
    return name, {}, len(ROWS) if name.endswith(CUT_SHOWS) and raw[:place].strip() != raw.strip() else None


def _damaged(folder: Path, rng: Random) -> Made:
    name = rng.choice(list(WHOLE))
    (folder / name).write_bytes(damaged_bytes(WHOLE[name], rng))
    return name, {}, None


def _misnamed(folder: Path, rng: Random) -> Made:
    name = rng.choice(list(WHOLE))
    other = "rows" + rng.choice(
        [".jsonl", ".json", ".csv", ".txt", ".parquet", ".arrow", ".gz", ".jsonl.gz", ".zst", "", ".xlsx", ".JSONL", ".json.json"]
    )
    (folder / other).write_bytes(WHOLE[name])
    more = {"ds_type": rng.choice(["json", "csv", "parquet", "arrow", "text"])} if rng.random() < 0.5 else {}
    return other, more, None


def _encoded(folder: Path, rng: Random) -> Made:
    name = rng.choice(["rows.jsonl", "array.json", "rows.csv", "rows.txt"])
    text = WHOLE[name].decode()
    code = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp037"])
    (folder / name).write_bytes(text.encode(code))
    return name, {}, len(ROWS) if code == "utf-8-sig" else None


def _line_ends(folder: Path, rng: Random) -> Made:
    lines = WHOLE["rows.jsonl"].splitlines()
    blank = rng.choice([b"", b"\n", b"  \n", b"\r\n\r\n"])
    (folder / "rows.jsonl").write_bytes((rng.choice([b"\r\n", b"\n"]) + blank).join(lines) + rng.choice([b"", b"\n", b"\r\n\n\n"]))
    return "rows.jsonl", {}, len(ROWS)


def _ragged(folder: Path, rng: Random) -> Made:
    lines = [",".join(rng.choice(["a", "", '"b"', '"c', "1", "1.5", "é", 'd"e']) for _ in range(rng.randint(0, 5))) for _ in range(9)]
    (folder / "rows.csv").write_text("text,n\n" + rng.choice(["\n", "\r\n", "\r"]).join(lines), encoding="utf-8")
    return "rows.csv", {}, None


def _nothing(folder: Path, rng: Random) -> Made:
    name = rng.choice([*WHOLE, "rows.json"])
    content = rng.choice(
        [b"", b"\n", b" \n\t\n", b"\0", b"\xef\xbb\xbf", b"[]", b"[", b"{}", b"null", b"text,n\n", gzip.compress(b"", mtime=0), _zst(b"")]
    )
    (folder / name).write_bytes(content)
    return name, {}, None


def _archive(folder: Path, rng: Random) -> Made:
    inside = rng.choice(["rows.jsonl", "../../escaped.jsonl", "/tmp/escaped.jsonl"])
    made = rng.choice([_zip, _tar])(_jsonl(), inside)
    name = rng.choice(["rows.zip", "rows.tar", "rows.tar.gz", "rows.tgz", "rows.jsonl", "rows.csv", "rows.parquet"])
    (folder / name).write_bytes(gzip.compress(made, mtime=0) if rng.random() < 0.3 else made)
    return name, {}, None


def _random(folder: Path, rng: Random) -> Made:
    name = rng.choice(list(WHOLE))
    magic = rng.choice([b"", b"", b"PAR1", b"ARROW1\0\0", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"[", b"{", b"\xff\xff\xff\xff"])
    (folder / name).write_bytes(magic + rng.randbytes(rng.randint(0, 4000)) + (b"PAR1" if magic == b"PAR1" else b""))
    return name, {}, None


def _no_file(folder: Path, rng: Random) -> Made:
    name = "rows.jsonl"
    kinds: list[Callable[[], object]] = [
        lambda: (folder / name).mkdir(),
        lambda: os.mkfifo(folder / name),
        lambda: (folder / name).symlink_to(name),
        lambda: (folder / name).symlink_to("gone.jsonl"),
        lambda: (folder / name).symlink_to("/dev/zero"),
        lambda: (folder / name).symlink_to("/dev/urandom"),
        lambda: (folder / name).symlink_to("/dev/null"),
        lambda: _listen(folder / name),
        lambda: None,
    ]
    kinds[rng.randrange(len(kinds))]()
    path = rng.choice(
        [
            f"./{name}",
            f"./{name}",
            "./*.jsonl",
            "/dev/zero",
            "/dev/stdin",
            "/proc/self/mem",
            "./" + "a" * 300,
            "./a\0b",
            "~nobody-at-all/x",
            ".",
        ]
    )
    return path, {}, None


def _folder(folder: Path, rng: Random) -> Made:
    inside = folder / "many"
    (inside / "deep").mkdir(parents=True)
    (inside / "a.jsonl").write_bytes(WHOLE["rows.jsonl"])
    for _ in range(rng.randint(0, 3)):
        kind = rng.randrange(7)
        name = rng.choice(
            ["b.jsonl", "train.jsonl", "é \n.jsonl", "dataset_infos.json", "state.json", "dataset_dict.json", "README.md", "config.yaml"]
        )
        target = inside / name
        if os.path.lexists(target):
            continue
        if kind == 0:
            os.mkfifo(target)
        elif kind == 1:
            target.symlink_to(rng.choice([".", "..", name, "/dev/zero", "deep"]))
        elif kind == 2:
            target.write_bytes(
                rng.choice(
                    [b"[1]", b"{", b"---\nconfigs: 7\n---\n", b"---\nconfigs:\n- config_name: a\n  data_files: ../../x\n---\n", b"\xff\xfe"]
                )
            )
        elif kind == 3:
            target.write_bytes(
                json.dumps({"splits": rng.choice([["../.."], [7], None]), "_data_files": [{"filename": "../../x"}]}).encode()
            )
        elif kind == 4:
            (inside / os.fsdecode(b"bad\xff\xfe.jsonl")).write_bytes(b"{}\n")
        else:
            target.write_bytes(damaged_bytes(WHOLE["rows.jsonl"], rng))
    more = rng.choice(
        [{}, {}, {"data_files": "*.jsonl"}, {"data_files": ["../*"]}, {"split": "train[:7%]"}, {"name": "x"}, {"split": "train[::"}]
    )
    return "./many", more, None


def _options(folder: Path, rng: Random) -> Made:
    name = rng.choice(list(WHOLE))
    (folder / name).write_bytes(WHOLE[name])
    more = rng.choice(
        [
            {"split": "train[5:2]"},
            {"split": "nope"},
            {"shards": 3},
            {"shards": 99, "shards_idx": 98},
            {"skip": 99},
            {"name": "x"},
            {"revision": "main"},
        ]
    )
    return name, more, None


def _bomb(folder: Path, rng: Random) -> Made:
    raw = b'{"text": "' + b"a" * (300 * 2**20) + b'"}'
    name = rng.choice(["rows.jsonl.gz", "rows.jsonl.zst"])
    (folder / name).write_bytes(gzip.compress(raw, 9, mtime=0) if name.endswith(".gz") else _zst(raw))
    return name, {}, -1


def _long_line(folder: Path, rng: Random) -> Made:
    name = rng.choice(["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
    line = b"a" * (20 * 2**20)
    rows = {"rows.jsonl": b'{"text": "' + line + b'"}\n{"text": "b"}\n', "rows.json": b'[{"text": "' + line + b'"}, {"text": "b"}]'}
    (folder / name).write_bytes(rows.get(name, (b"text\n" if name == "rows.csv" else b"") + line + b"\nb\n"))
    return name, {}, 2


def _locked(folder: Path, rng: Random) -> Made:
    """Without a right to read. Root may read all the same."""
    (folder / "rows.jsonl").write_bytes(WHOLE["rows.jsonl"])
    (folder / "rows.jsonl").chmod(0)
    return "rows.jsonl", {}, len(ROWS) if os.geteuid() == 0 else -1


def _listen(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


COMMON = {
    "cut": _cut,
    "damaged": _damaged,
    "wrong name": _misnamed,
    "other encoding": _encoded,
    "line ends": _line_ends,
    "ragged CSV": _ragged,
}
COMMON |= {
    "no rows": _nothing,
    "archives": _archive,
    "random bytes": _random,
    "no file": _no_file,
    "folders": _folder,
    "other parts": _options,
}
COMMON |= {"no permission": _locked}
RARE = {"bombs": _bomb, "a line of 20 MB": _long_line}
"""Seconds each: one in five hundred."""


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """``count`` files, as many of each common kind."""
    for number in range(count):
        name = rng.choice(list(RARE)) if number % 500 == 250 else list(COMMON)[number % len(COMMON)]
        workspace = folder / f"files-{number}"
        workspace.mkdir()
        path, more, expected = (COMMON | RARE)[name](workspace, rng)
        place = path if path.startswith(("/", ".", "~")) else f"./{path}"
        yield judge(f"files: {name}", f"{place} {more}", lambda w=workspace, p=place, m=more, e=expected: fetch(w, p, m, e))  # type: ignore[misc]
        shutil.rmtree(workspace)
    assert not Path("/tmp/escaped.jsonl").exists() and not list(folder.parent.glob("**/escaped.jsonl"))


def fetch(workspace: Path, path: str, more: dict[str, Any], expected: int | None) -> Rows:
    """Check, link and fetch one dataset; ``expected`` rows must arrive, -1: it must be refused."""
    fetched = fetch_project(workspace, {"path": path, "type": "completion", **more})
    found = sum(1 for raw in fetched.raw for line in raw.split(b"\n") if line.strip())
    assert found > 0, "no rows, and no word of it"
    assert expected is None or found == expected, f"{found} rows of {expected}"
    return Rows(found)
