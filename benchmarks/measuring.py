"""What all measurements share: their command line, a process of its own for each, CPU seconds and peak memory, the computer, a report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Measures = Mapping[str, Callable[..., Result]]
RESULTS = Path(__file__).resolve().parent / "results"


def program(documentation: str | None) -> argparse.ArgumentParser:
    """A parser that tells the first line of a module's documentation."""
    return argparse.ArgumentParser(description=(documentation or "").partition("\n")[0])


def parse(parser: argparse.ArgumentParser, report: str, measures: Measures) -> argparse.Namespace | None:
    """Read the command line of a program, with ``save_as``: ``report`` if `--save` asks to keep it, for :func:`publish`.

    ``None`` where this process was started by :func:`measure`: the measurement is made and printed, and nothing else is to be done.
    """
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{report}.md")
    parser.add_argument("--measure", choices=measures, help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.save_as = report if arguments.save else None
    if arguments.measure is None:
        return arguments
    print(json.dumps(measures[arguments.measure](**arguments.settings)))
    return None


def require(parser: argparse.ArgumentParser, option: str, folder: Path, file: str) -> None:
    """End with a message if a folder of the fetched model or tokenizer is not there."""
    if not (folder / file).exists():
        parser.error(f"{option} {folder} holds no {file}; `dvc repro fetch` makes data/base and data/tokenizer")


def measure(program: str, name: str, /, *, threads: int = 1, limit: float | None = None, **settings: Any) -> Result:
    """Run ``program --measure name`` in a process of its own and read the JSON of its last line.

    Raises:
        subprocess.SubprocessError: it failed, or took longer than ``limit`` seconds.
    """
    environment = os.environ | {
        "RAYON_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, str(Path(program).resolve()), "--measure", name, "--settings", json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mb() -> int:
    """Largest resident memory of this process, or of a child, so far."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024


def timed(work: Callable[[], Result]) -> Result:
    """What ``work`` returns, with ``cpu`` and ``wall`` seconds and ``peak_mb``."""
    started, spent = time.perf_counter(), cpu_seconds()
    result = work()
    return result | {"cpu": cpu_seconds() - spent, "wall": time.perf_counter() - started, "peak_mb": peak_mb()}


def heading(title: str, packages: Iterable[str]) -> str:
    """Title, command, date, computer and versions."""
    command = " ".join(["python", *(f"benchmarks/{Path(word).name}" if word == sys.argv[0] else word for word in sys.argv)])
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {_processor()}, Python {platform.python_version()}, {versions}"
    return f"# {title}\n\n`{command.removesuffix(' --save')}`, {datetime.now(UTC):%Y-%m-%d}\n\n{machine}"


def publish(lines: Iterable[str], save_as: str | None) -> None:
    """Print lines as they come; keep them as ``benchmarks/results/<save_as>.md`` if asked to."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    if save_as is not None:
        target = RESULTS / f"{save_as}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text("\n".join(kept) + "\n", encoding="utf-8")
        print(f"\nWritten to {target}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
