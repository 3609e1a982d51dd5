"""Several processes tokenize: their errors arrive, and none outlives the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.process import die_with_parent
from stages.tokenize import corpus, work
from tests.tokenize.test_blocks import chats, run

ROOT = Path(__file__).parents[2]

_OWN = """
import os, signal, time
def slow(row):
    open({started!r}, "a").write("%d\\n" % os.getpid())
    time.sleep(60)
def killed(row):
    if row["messages"] != "broken" and row["messages"][0]["content"] == "33?":
        os.kill(os.getpid(), signal.SIGKILL)
    return row
"""

_RUN = """
import signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from pipeline.process import die_with_parent
from stages.tokenize import corpus
from tests.tokenize.test_blocks import chats, run
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts into the background with SIGINT ignored
    die_with_parent()
    corpus._BYTES_PER_WORKER = 1
    options = {"datasets": [{"path": "x.jsonl", "type": "own.slow"}], "dataset_num_proc": 2}
    run(Path(sys.argv[1]), [row | {"text": "x" * 200_000} for row in chats(range(40))], options=options)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's own in it."""
    (tmp_path / "own.py").write_text(_OWN.format(started=str(tmp_path / "started")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def alive(numbers: list[int]) -> list[int]:
    """Those that run; a zombie does not."""
    return [number for number in numbers if Path(f"/proc/{number}").exists() and _state(number) != "Z"]


def _state(number: int) -> str:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_for(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)


@pytest.fixture
def running(project: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run with two workers that are busy for a minute, in a group of its own, and the numbers of the workers."""
    (project / "script.py").write_text(_RUN)
    command = [sys.executable, "script.py", str(project / "work"), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0, env=environment) as process:
        started = project / "started"
        wait_for(lambda: (started.exists() and len(set(started.read_text().split())) == 2) or process.poll() is not None, 60)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process, [int(number) for number in set(started.read_text().split())]
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGKILL, False)])
def test_no_worker_outlives_a_run_that_is_stopped(
    running: tuple[subprocess.Popen[str], list[int]], project: Path, number: signal.Signals, to_all: bool
) -> None:
    process, workers = running
    assert len(alive(workers)) == 2
    os.killpg(process.pid, number) if to_all else process.send_signal(number)
    process.wait(20)
    wait_for(lambda: not alive(workers), 5)
    assert not alive(workers)
    assert process.stderr is not None
    said = process.stderr.read()
    assert "SpawnProcess" not in said and said.count("Traceback") <= 1, said
    assert not list((project / "work").rglob("tokens/manifest.json"))


def test_a_worker_that_is_killed_is_said_with_the_rows_it_was_at(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_BYTES_PER_WORKER", 1)
    options = {"datasets": [{"path": "rows.jsonl", "type": "own.killed"}], "dataset_num_proc": 2}
    with pytest.raises(RegrowError, match=r"was killed.* at ./my/rows.jsonl .*lines or items 1 to .*\n.*dataset_num_proc"):
        run(project / "work", chats(range(40)), options=options)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crash_says_at_which_rows(project: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(corpus, "_BYTES_PER_WORKER", 1)
    monkeypatch.setattr(work, "TokenRows", work.TokenRows)  # the module below breaks it, in this process too
    (project / "broken.py").write_text(
        "from stages.tokenize import work\ndef crash(*given): return 1 / 0\nwork.TokenRows = crash\ndef format(row): return row\n"
    )
    options = {"datasets": [{"path": "x.jsonl", "type": "broken.format"}], "dataset_num_proc": processes}
    with pytest.raises(ZeroDivisionError) as raised:
        run(project / "work", chats(range(40)), options=options)
    assert "while tokenizing ./my/rows.jsonl (rows.jsonl), lines or items 1 to 40" in raised.value.__notes__


def test_what_a_worker_refuses_is_refused_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_BYTES_PER_WORKER", 1)
    (tmp_path / "cache").mkdir()
    for number in range(256):
        (tmp_path / "cache" / f"{number:02x}").write_bytes(b"")  # where folders of the cache would be
    with pytest.raises(RegrowError, match=r"cannot be kept in .*\n.*dataset_prepared_path"):
        run(tmp_path, chats(range(40)), cache=tmp_path / "cache", options={"dataset_num_proc": 2})


@pytest.mark.slow
def test_what_decides_nothing_does_not_show(tmp_path: Path) -> None:
    """One, two and three processes, other hash seeds, another locale: the same artifact."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom stages.tokenize import corpus\nfrom tests.tokenize.test_blocks import chats, run\n"
        "if __name__ == '__main__':\n"
        "    corpus._BYTES_PER_WORKER = 1\n"
        "    corpus.split_blocks.__globals__.update(_LEAST=64, _MOST=2048, _PER_BYTE=2**32 // 4096)\n"
        "    print(run(Path(sys.argv[1]), chats(range(300)), options={'dataset_num_proc': int(sys.argv[2])})[0])\n"
    )
    (tmp_path / "script.py").write_text(script)
    made = []
    for processes, seed, locale in ((1, "0", "C.UTF-8"), (2, "1", "C"), (3, "2", "POSIX")):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "LC_ALL": locale}
        command = [sys.executable, "script.py", str(tmp_path / str(processes)), str(processes)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert f"{processes} processes" in done.stderr
        made.append(done.stdout)
    assert len(set(made)) == 1


def test_a_process_whose_parent_is_gone_already_does_not_begin() -> None:
    child = os.fork()
    if not child:
        die_with_parent(parent=1 if os.getppid() != 1 else 2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
