"""`dvc repro` and `regrow plan` where nothing has changed: seconds, and where they go.

    python benchmarks/noop.py [--project .] [--repeats 5] [--save]

The project must be built. Each command runs in a process of its own; the figures are medians, and CPU seconds those to trust on a
shared computer. Inside a process, clocks around single calls say where its time goes.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring  # noqa: E402
from benchmarks.measuring import Result, timed  # noqa: E402

COMMANDS: dict[str, list[str]] = {
    "python": ["-c", "pass"],
    "import dvc": ["-c", "import dvc.cli, dvc.repo.reproduce, dvc.commands.repro"],
    "dvc repro": ["-m", "dvc", "repro"],
    "configure": ["-m", "pipeline", "configure"],
    "regrow plan": ["-m", "pipeline", "plan"],
}
_START = "Python starts"
_IMPORTS = "imports"
_CHECK = "params.yaml: read, checked"
_DOCUMENTS = "options, code and libraries of eight stages"
_SOURCES = "local files that params.yaml names"
_OPEN = "DVC: imports, dvc.yaml, dvc.lock"
_STATES = "DVC: hashes of what is there, its caches"
CLOCKS: dict[str, dict[str, str]] = {
    "configure": {
        "pipeline.options.recipe:load_recipe": _CHECK,
        "pipeline.configure:stage_document": _DOCUMENTS,
        "pipeline.configure:local_files": _SOURCES,
        "pipeline.configure:link_all": "links in data/sources and data/modules",
    },
    "plan": {
        "pipeline.options.recipe:load_recipe": _CHECK,
        "pipeline.planning.verdicts:stage_document": _DOCUMENTS,
        "pipeline.planning.verdicts:local_files": _SOURCES,
        "pipeline.planning.verdicts:open_recorded": _OPEN,
        "pipeline.planning.recorded:Recorded.found": _STATES,
        "pipeline.planning.recorded:Recorded.is_cached": _STATES,
    },
}
"""Calls that are clocked in each command of regrow's. None of them happens inside another."""


def main() -> None:
    """Check that the project is built, measure, print."""
    parser = measuring.program(__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are reported")
    arguments = measuring.parse(parser, "noop", MEASURES)
    if arguments is None:
        return
    project = arguments.project.resolve()
    planned = subprocess.run([sys.executable, *COMMANDS["regrow plan"]], cwd=project, capture_output=True, text=True, check=False)
    if planned.returncode:
        parser.error(f"{project} has work to do, or is no project; `dvc repro` first:\n{planned.stdout}{planned.stderr}")
    measuring.publish(_report(project, arguments.repeats), arguments.save_as)


def _report(project: Path, repeats: int) -> Iterator[str]:
    yield measuring.heading("Nothing to do: what `dvc repro` and `regrow plan` take", ("dvc", "pydantic", "typer"))
    took = {name: _median(project, "command", repeats, name=name) for name in COMMANDS}
    inside = {name: _median(project, "clocked", repeats, name=name) for name in CLOCKS}
    yield f"\n{_size(project)}\n\n| | CPU s | wall s |\n|---|---|---|"
    for name in ("dvc repro", "regrow plan"):
        yield f"| `{name}` | {took[name]['cpu']:.2f} | {took[name]['wall']:.2f} |"
    configure, start = _parts(inside["configure"], took["configure"], took["python"]), took["python"]["cpu"]
    imports = took["import dvc"]["cpu"] - start
    rest = took["dvc repro"]["cpu"] - took["configure"]["cpu"] - start - imports
    dvc = {f"DVC: {_START}": start, "DVC: imports": imports, "DVC: dvc.yaml, dvc.lock, the graph, hashes, locks": rest}
    yield from _table("`dvc repro`", dvc | {f"configure: {name}": seconds for name, seconds in configure.items()})
    plan = _parts(inside["plan"], took["regrow plan"], took["python"])
    yield from _table("`regrow plan`", plan)
    ours = sum(seconds for name, seconds in plan.items() if not name.startswith("DVC"))
    yield f"\nregrow's own part, with the start of Python: {took['configure']['cpu']:.2f} s of `dvc repro`, {ours:.2f} s of `regrow plan`."


def _parts(clocked: Result, whole: Result, start: Result) -> dict[str, float]:
    """Seconds of a command by where they go."""
    seen = clocked | {_IMPORTS: clocked[_IMPORTS] - start["cpu"]}
    return {_START: start["cpu"]} | seen | {"the rest, Python's end with it": max(0.0, whole["cpu"] - start["cpu"] - sum(seen.values()))}


def _table(title: str, parts: dict[str, float]) -> Iterator[str]:
    yield f"\n## {title}\n\n| | CPU s | of it |\n|---|---|---|"
    whole = sum(parts.values())
    for name, seconds in parts.items():
        yield f"| {name} | {seconds:.2f} | {seconds / whole:.0%} |"


def _size(project: Path) -> str:
    files = [path for path in (project / "data").rglob("*") if path.is_file()]
    return f"{len(files):,} files in data/, {sum(path.stat().st_size for path in files) / 1e9:.2f} GB, all known to DVC."


def _median(project: Path, measure: str, repeats: int, **settings: Any) -> Result:
    measuring.measure(__file__, measure, project=str(project), **settings)  # so that Python's and DVC's own caches are warm
    found = [measuring.measure(__file__, measure, project=str(project), **settings) for _ in range(repeats)]
    return {name: statistics.median(result[name] for result in found) for name in found[0]}


def command(project: str, name: str) -> Result:
    """One command as a user starts it, from outside."""

    def run() -> Result:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PATH": path}
        subprocess.run([sys.executable, *COMMANDS[name]], cwd=project, env=environment, stdout=subprocess.DEVNULL, check=True)
        return {}

    return timed(run)


def clocked(project: str, name: str) -> Result:
    """A command of regrow's in this process, with clocks around the calls of :data:`CLOCKS`."""
    os.chdir(project)
    sys.path.insert(0, project)
    sys.argv = ["regrow", name]
    seconds = {_IMPORTS: 0.0} | dict.fromkeys(CLOCKS[name].values(), 0.0)

    @contextmanager
    def clock(part: str) -> Iterator[None]:
        started = time.process_time()
        yield
        seconds[part] += time.process_time() - started

    owners = {place: _owner(place) for place in CLOCKS[name]}
    from pipeline.cli import app
    from pipeline.commands.doors import STAGES

    for stage in STAGES:
        importlib.import_module(f"stages.{stage}")
    seconds[_IMPORTS] = time.process_time()  # since the process began, as much of what is imported was for this program too
    for place, part in CLOCKS[name].items():
        owner, attribute = owners[place]
        setattr(owner, attribute, _with_clock(getattr(owner, attribute), part, clock))
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        app([name], standalone_mode=False)
    return seconds


def _owner(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    *outer, attribute = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), attribute


def _with_clock(function: Any, part: str, clock: Callable[[str], Any]) -> Any:
    @functools.wraps(function)
    def clocked(*arguments: Any, **keywords: Any) -> Any:
        with clock(part):
            result = function(*arguments, **keywords)
        return _Opened(result, part, clock) if hasattr(result, "__enter__") else result

    return clocked


class _Opened:
    """A context whose opening is clocked; what is done in it is not."""

    def __init__(self, context: Any, part: str, clock: Callable[[str], Any]) -> None:
        self._context, self._part, self._clock = context, part, clock

    def __enter__(self) -> Any:
        with self._clock(self._part):
            return self._context.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self._context.__exit__(*error)


MEASURES: dict[str, Callable[..., Result]] = {"command": command, "clocked": clocked}


if __name__ == "__main__":
    main()
