"""Every format of rows becomes the same JSON Lines, and what is damaged is refused in one line that names the file."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RegrowError
from stages.fetch import json_rows, packed
from tests.fetch.rows import fetch_rows, write_arrow, write_lines, write_parquet

ROWS: list[dict[str, Any]] = [
    {"text": "plain", "n": 1, "turns": [{"role": "user", "content": "é漢🙂\u2028"}]},
    {"text": 'quotes " and \\ and\nnew lines\r\n', "n": -2, "turns": []},
    {"text": "", "n": 3, "turns": [{"role": "a", "content": None}]},
] * 9


def jsonl(path: Path) -> None:
    write_lines(path, ROWS)


def array(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8-sig")


def spread(path: Path) -> None:
    path.write_text("".join(json.dumps(row, indent=1) + "\n" for row in ROWS))


WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": jsonl,
    "rows.ndjson": jsonl,
    "rows.json": array,
    "lines.json": jsonl,
    "spread.json": spread,
    "rows.parquet": lambda path: write_parquet(path, ROWS, row_group_size=5),
    "rows.arrow": lambda path: write_arrow(path, ROWS),
    "stream.arrow": lambda path: write_arrow(path, ROWS, stream=True),
}


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_are_the_same_bytes_from_every_format(tmp_path: Path, name: str, packing: str) -> None:
    jsonl(tmp_path / "expected.jsonl")
    WRITERS[name](tmp_path / name)
    path = tmp_path / (name + packing)
    if packing:
        data = (tmp_path / name).read_bytes()
        path.write_bytes(gzip.compress(data, mtime=0) if packing == ".gz" else pa.Codec("zstd").compress(data, asbytes=True))
    fetched = fetch_rows(tmp_path, path)
    assert fetched.raw == [(tmp_path / "expected.jsonl").read_bytes()]
    assert fetched.sources == [
        {
            "name": "train-00",
            "split": "train",
            "path": f"./{path.name}",
            "file": path.name,
            "rows_file": "train-00/00000.jsonl",
            "numbers": None,
            "revision": None,
        }
    ]


def test_json_lines_are_copied_byte_for_byte(tmp_path: Path) -> None:
    odd = b'\xef\xbb\xbf{"text": "\xff no utf-8"}\r\n\r\n{broken\n  \n[1]\n{"a": 1.0, "a": 1e400}'
    (tmp_path / "odd.jsonl").write_bytes(odd)
    assert fetch_rows(tmp_path, tmp_path / "odd.jsonl").raw == [odd]


def test_csv_cells_are_what_a_column_as_a_whole_is(tmp_path: Path) -> None:
    """Long enough that a chunk of pandas (10,000 rows) would see integers only."""
    header = "text,count,share,sure,zip,note,text,\r\n"
    lines = [f'"a, ""{i}""\nb",{i},{i}.5,True,0{i},,x,\r\n' for i in range(10001)] + ["last,,7,false,1,n/a,None,9,\r\n".replace("9,", "9")]
    (tmp_path / "rows.csv").write_text("\ufeff" + header + "\r\n" + "".join(lines), newline="")
    rows = fetch_rows(tmp_path, tmp_path / "rows.csv").rows
    assert len(rows) == 10002
    assert rows[3] == {
        "text": 'a, "3"\nb',
        "count": 3,
        "share": 3.5,
        "sure": True,
        "zip": "03",
        "note": None,
        "text.1": "x",
        "Unnamed: 7": None,
    }
    assert rows[-1] == {
        "text": "last",
        "count": None,
        "share": 7.0,
        "sure": False,
        "zip": "1",
        "note": None,
        "text.1": None,
        "Unnamed: 7": 9,
    }


VALUES = st.text(max_size=40) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\x00"), min_size=1).filter(
    lambda text: not text[0].isdigit()
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS, st.integers(-(10**6), 10**6), st.booleans()), min_size=1, max_size=20))
def test_csv_agrees_with_datasets_own_reader(tmp_path: Path, cells: list[tuple[str, str, int, bool]]) -> None:
    """pandas as `datasets` calls it."""
    import pandas as pd

    stream = io.StringIO()
    csv.writer(stream).writerows([("instruction", "output", "n", "flag"), *cells])
    text = stream.getvalue()
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8", newline="")
    expected = pd.read_csv(io.StringIO(text), dtype={"instruction": str, "output": str})
    rows = fetch_rows(tmp_path, tmp_path / "rows.csv").rows
    for row, (_, wanted) in zip(rows, expected.iterrows(), strict=True):
        for key, value in wanted.items():
            assert row[str(key)] is None if isinstance(value, float) and math.isnan(value) else str(row[str(key)]) == str(value)


def test_text_files_have_a_row_for_every_line(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_bytes("\ufefffirst\r\n\n third \u2028 \x0c still\rold mac\nlast".encode())
    assert fetch_rows(tmp_path, tmp_path / "rows.txt").rows == [
        {"text": text} for text in ("first", "", " third \u2028 \x0c still", "old mac", "last")
    ]


def test_values_that_json_cannot_hold_are_converted_as_stated(tmp_path: Path) -> None:
    table = pa.table(
        {
            "f": [1.5, float("nan"), float("inf")],
            "t": pa.array([dt.datetime(2020, 1, 2, 3, 4, 5, 6), None, dt.datetime(1999, 1, 1)], pa.timestamp("us", "UTC")),
            "d": [dt.date(2020, 1, 2), None, dt.date(1, 1, 1)],
            "s": pa.array([1500, 0, None], pa.duration("ms")),
            "c": pa.array([Decimal("1.10"), None, Decimal("-0.05")]),
            "b": [b"text", b"\xff\x00", "é".encode()],
            "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "x": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    expected = [
        {"f": 1.5, "t": "2020-01-02T03:04:05.000006+00:00", "d": "2020-01-02", "s": 1.5, "c": "1.10", "b": "text", "m": {"k": 1}, "x": "a"},
        {"f": None, "t": None, "d": None, "s": 0.0, "c": None, "b": {"base64": "/wA="}, "m": {}, "x": "b"},
        {"f": None, "t": "1999-01-01T00:00:00+00:00", "d": "0001-01-01", "s": None, "c": "-0.05", "b": "é", "m": None, "x": "a"},
    ]
    assert fetch_rows(tmp_path, write_arrow(tmp_path / "rows.arrow", table)).rows == expected
    assert fetch_rows(tmp_path, write_parquet(tmp_path / "rows.parquet", table)).rows == expected


def test_items_of_an_array_keep_what_they_hold(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and half surrogates stay in their row, to be refused there; texts are rows of their own."""
    (tmp_path / "rows.json").write_bytes(b' [ {"a":NaN,"big":123456789012345678901234567890} ,\n"text",{"b":"\xff"},{"c":"\\ud800"},7 ]\n ')
    assert fetch_rows(tmp_path, tmp_path / "rows.json").raw == [
        b'{"a":null,"big":123456789012345678901234567890}\n{"text":"text"}\n{"b":"\xff"}\n{"c":"\\ud800"}\n7\n'
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=40) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
    )
)
def test_an_array_is_read_alike_whatever_the_chunks(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    whole = json_rows._CHUNK
    try:
        json_rows._CHUNK = 3
        assert fetch_rows(tmp_path, path).rows == rows
    finally:
        json_rows._CHUNK = whole


def _truncated_gzip() -> bytes:
    return gzip.compress(b'{"a": 1}\n' * 5000, mtime=0)[:-9]


def _cut(kind: str, tmp_path: Path) -> bytes:
    path = tmp_path / f"whole.{kind}"
    {"parquet": write_parquet, "arrow": write_arrow}[kind](path, ROWS)
    return path.read_bytes()[:-40]


def _far_future(folder: Path) -> bytes:
    return write_arrow(folder / "years", pa.table({"a": pa.array([2**62], pa.timestamp("s"))})).read_bytes()


def _same_names(folder: Path) -> bytes:
    return write_parquet(folder / "names", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "holds no rows"),
        ("blank.jsonl", b"\n \n", "holds no rows"),
        ("empty.json", b" [ ] ", "holds no rows"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"a,b\n", "holds no rows"),
        ("empty.parquet", b"", "cannot be read as Parquet"),
        ("middle.json", b'[{"a": 1}, {"a": x}, {"a": 2}]', r"is not valid JSON at item 2: expecting value"),
        ("cut.json", b'[{"a": 1}, {"a": "tex', r"is not valid JSON at item 2: unterminated string"),
        ("open.json", b'[{"a": 1}', r"at item 2: the array is not closed"),
        ("after.json", b'[{"a": 1}] {"b": 2}', r"'\{\"b\": 2\}' follows the end"),
        ("comma.json", b'[{"a": 1} {"b": 2}]', r"a comma or \] is missing"),
        ("deep.json", b'[{"a": ' + b"[" * 100000, "nested too deeply"),
        ("wide.csv", b"a,b\n1,2\n1,2,3\n", r"row 2 has 3 cells, and the header names 2 columns.*\n.*quotes"),
        ("quote.csv", b'a,b\n1,"2\n3,4\n', r"is not a CSV table at line 3: unexpected end of data"),
        ("latin.csv", b"a\n\xe9\n", "is not UTF-8 text"),
        ("utf16.jsonl", '{"a": 1}\n'.encode("utf-16"), "is UTF-16 text"),
        ("utf16.csv", "a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 text, or no text"),
        ("digits.json", b'[{"a": 1' + b"0" * 5000 + b"}]", "at item 1: a number has too many digits"),
        ("twice.jsonl.gz", gzip.compress(_truncated_gzip(), mtime=0), "it is a gzip file"),
        ("pointer.txt", b"version https://git-lfs.github.com/spec/v1\noid", r"is a Git LFS pointer and not text\..*\n.*git lfs pull"),
        ("login.jsonl", b"<!DOCTYPE HTML>\n<html>", "is a web page and not json"),
        ("years.arrow", lambda folder: _far_future(folder), "cannot be read as Arrow: Python int too large"),
        ("names.parquet", lambda folder: _same_names(folder), "cannot be read as Parquet: two columns have the same name"),
        ("cut.jsonl.gz", _truncated_gzip(), "cannot be unpacked as gzip: Truncated"),
        ("broken.json.zst", b"\x28\xb5\x2f\xfd rubbish", "cannot be unpacked as zstd"),
        ("cut.parquet", lambda folder: _cut("parquet", folder), "cannot be read as Parquet"),
        ("cut.arrow", lambda folder: _cut("arrow", folder), "cannot be read as Arrow"),
        ("rubbish.arrow", b"rubbish, but long enough", "cannot be read as Arrow"),
        (
            "table.jsonl",
            lambda folder: write_parquet(folder / "t", ROWS).read_bytes(),
            r"it is a parquet file\.\n  Write `ds_type: parquet`",
        ),
        ("archive.csv", b"PK\x03\x04 and more", r"it is a zip file\.\n  These work: \.jsonl"),
        ("rows.xyz", b"{}", r"a suffix that no reader is for.*\n  These work: \.jsonl.*ds_type"),
    ],
)
def test_what_is_damaged_is_refused_by_name(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / "source" / name
    path.parent.mkdir()
    path.write_bytes(content(tmp_path) if callable(content) else content)
    with pytest.raises(RegrowError, match=rf"datasets\[0\]\.path '\./{name}'.*{message}") as caught:
        fetch_rows(tmp_path, path)
    assert caught.value.remedy and "\n" not in caught.value.message


def test_zstd_may_begin_with_a_frame_that_says_nothing(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(b'{"a":1}\n')
    (tmp_path / "rows.jsonl.zst").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + sink.getvalue().to_pybytes())
    assert fetch_rows(tmp_path, tmp_path / "rows.jsonl.zst").raw == [b'{"a":1}\n']


def test_long_digits_in_a_table_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n123456789012345678901234,1e5\n7,2\n")
    assert fetch_rows(tmp_path, tmp_path / "rows.csv").rows == [{"a": "123456789012345678901234", "b": 1e5}, {"a": "7", "b": 2.0}]


def test_ds_type_says_what_a_suffix_does_not(tmp_path: Path) -> None:
    (tmp_path / "rows.data").write_text("a\n1\n")
    assert fetch_rows(tmp_path, tmp_path / "rows.data", ds_type="csv").rows == [{"a": 1}]
    assert fetch_rows(tmp_path, tmp_path / "rows.data", ds_type="text").rows == [{"text": "a"}, {"text": "1"}]


def test_a_file_that_unpacks_to_far_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SMALL", 2**16)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 2**23, mtime=0))
    with pytest.raises(RegrowError, match=r"bomb\.jsonl\.gz' unpacks to more than 300 times its size"):
        fetch_rows(tmp_path, tmp_path / "bomb.jsonl.gz")


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.txt", "rows.csv"])
def test_a_row_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in ("json_rows", "text_rows"):
        monkeypatch.setattr(f"stages.fetch.{module}.LONGEST_ROW", 2**16)
    monkeypatch.setattr(json_rows, "_CHUNK", 2**14)
    start = {"rows.json": b'[{"a": "', "rows.jsonl": b"", "rows.txt": b"", "rows.csv": b"a\n"}[name]
    (tmp_path / name).write_bytes(start + b"x" * 2**18)
    with pytest.raises(RegrowError, match=rf"{name}.*(longer than|larger than)"):
        fetch_rows(tmp_path, tmp_path / name, split="train[:1]")
