"""SIGKILL at random moments in every stage: ``python -m tests.faults.kill_matrix --moments 10``, or ``make faults``.

For each moment the stage's outputs are removed, `dvc repro` is started for that stage and killed, and started again. What the
kill left must be whole artifacts or none; the second run must end with the digests of a build that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.artifact import open_artifact
from tests.faults.project import ALL, Built

VICTIMS = ("all", "dvc", "stage")
"""Who gets the SIGKILL, in turn: every process, as when a machine goes down; DVC alone; the stage alone, as by the kernel out of memory."""
PATIENCE = 60.0
"""Seconds that a process may take to end after those that it works for are dead."""


@dataclass
class Tally:
    """What ``moments`` kills of one stage came to.

    Attributes:
        phases: how often the kill found the stage starting (imports, checks), at work, or done and being recorded by DVC.
        left: processes that went on after the kill, half-written artifacts, files left over after the second run.
        digests: the outputs' md5 in dvc.lock after every second run; one value where nothing was lost.
    """

    stage: str
    expected: str
    moments: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    digests: Counter[str] = field(default_factory=Counter)

    @property
    def survived(self) -> int:
        return self.digests[self.expected]

    @property
    def lost(self) -> list[str]:
        """What was left behind, and digests that are others."""
        return self.left + [f"{self.stage}: {digest}, not {self.expected}" for digest in self.digests if digest != self.expected]

    def line(self) -> str:
        phases = " / ".join(str(self.phases[name]) for name in ("starting", "at work", "recorded"))
        return f"| {self.stage} | {self.survived} of {self.moments} | {phases} | {len(self.left)} | {', '.join(self.digests)} |"


HEAD = "| stage | survived | starting / at work / being recorded | left behind | digest of the outputs |\n|---|---|---|---|---|"


def kill_stage(project: Built, stage: str, moments: Sequence[float], victims: Iterable[str], *, in_a_row: int = 1) -> Tally:
    """Kill one stage at each of these fractions of its usual time, and after each, or each few ``in_a_row``, let it complete."""
    tally = Tally(stage, locked(project, stage))
    usual = project.usual_seconds(stage)
    for number, (moment, victim) in enumerate(zip(moments, victims, strict=True), 1):
        project.forget(stage)
        tally.phases[kill(project, stage, moment * usual, victim, tally.left)] += 1
        tally.moments += 1
        tally.left += half_written(project, stage)
        if number % in_a_row == 0:
            complete(project, stage, tally, in_a_row)
    return tally


def complete(project: Built, stage: str, tally: Tally, kills: int) -> None:
    """Run the stage again, with nobody in its way."""
    ending = project.attempt(*project.single(stage))
    if "'./dvc.lock' validation failed" in ending.output:
        tally.phases["dvc.lock cut short"] += 1
        ending = project.attempt("regrow", stage, "--single")
    if ending.code or "Traceback" in ending.output:
        tally.left.append(f"the run after a kill ended with {ending.code}: {ending.output}")
    tally.digests[locked(project, stage)] += kills
    tally.left += half_written(project, stage) + leftovers(project, stage)


def kill(project: Built, stage: str, seconds: float, victim: str, left: list[str]) -> str:
    """Start the stage, kill it ``seconds`` after DVC called it, and wait for the end of all its processes. What it was at."""
    process = project.start(*project.single(stage))
    for _ in until_started(process, stage):
        pass
    time.sleep(seconds)
    at = phase(project, stage)
    if victim == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        for number in [process.pid] if victim == "dvc" else stage_processes(process.pid, stage):
            os.kill(number, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + PATIENCE
    while session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    left += [f"process {number} went on after {victim} was killed" for number in session(process.pid)]
    return at


def until_started(process: subprocess.Popen[str], stage: str) -> Iterator[str]:
    """Lines of DVC's up to the one that says which command it runs."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if line.startswith(f"> python -m pipeline run {stage}"):
            return
    raise AssertionError(f"DVC did not run {stage}")


def phase(project: Built, stage: str) -> str:
    if all(path.exists() for path in project.outs(stage)):
        return "recorded"
    return "at work" if any((project.root / "data/.partial").glob("*")) else "starting"


def half_written(project: Built, stage: str) -> list[str]:
    """Folders under an artifact's name that are not whole; opening hashes every file."""
    return [str(path) for path in project.outs(stage) if path.exists() and not is_whole(path)]


def is_whole(path: Path) -> bool:
    try:
        open_artifact(path)
    except Exception:
        return False
    return True


def leftovers(project: Built, stage: str) -> list[str]:
    """What a completed run should have removed: drafts, and the stage's scratch folder."""
    return [str(path) for folder in (project.root / "data/.partial", project.root / ".regrow" / stage) for path in folder.glob("*")]


def session(leader: int) -> list[int]:
    """Living processes of the session that ``leader`` began, wherever in the tree they are."""
    return [number for number, fields in processes() if int(fields[3]) == leader and fields[0] != "Z"]


def stage_processes(leader: int, stage: str) -> list[int]:
    wanted = f"-m\0pipeline\0run\0{stage}".encode()
    return [number for number in session(leader) if wanted in read(Path(f"/proc/{number}/cmdline"))]


def processes() -> Iterator[tuple[int, list[str]]]:
    """Numbers of all processes with the fields of proc(5)'s stat that follow the name: state, parent, group, session."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (stat := read(folder / "stat")):
            yield int(folder.name), stat.rpartition(b")")[2].decode().split()


def read(path: Path) -> bytes:
    """A file of /proc; empty when its process is gone."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def locked(project: Built, stage: str) -> str:
    """The outputs' md5 as dvc.lock has them, the first eight characters of each."""
    content = YAML(typ="safe", pure=True).load(project.root / "dvc.lock") or {"stages": {}}
    return " ".join(out["md5"][:8] for out in content["stages"].get(stage, {"outs": []})["outs"])


def drawn(stage: str, count: int, seed: int = 9) -> tuple[list[float], list[str]]:
    """Moments, one in each equal part of the run, and who is killed at each."""
    rng = random.Random(f"{seed} {stage}")
    moments = [(number + rng.random()) / count for number in range(count)]
    victims = [VICTIMS[number % 3] for number in range(count)]
    rng.shuffle(victims)
    return moments, victims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--stages", nargs="+", default=ALL, choices=ALL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regrow-kills-") as folder:
        project, lost = Built(Path(folder) / "built"), []
        print(HEAD, flush=True)
        for stage in arguments.stages:
            tally = kill_stage(project, stage, *drawn(stage, arguments.moments))
            print(tally.line(), flush=True)
            lost += tally.lost
    print("\n".join(lost) or "Nothing was lost.")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
