"""What is different in the clone on purpose: nothing of it may reach an artifact."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.errors import RegrowError
from pipeline.process import die_with_parent
from pipeline.project import Project


@dataclass(frozen=True)
class Otherwise:
    """``workers``: processes that tokenize. ``environment``: variables, each with a value it does not have here."""

    workers: int
    environment: Mapping[str, str]


def choose(workers: int | None) -> Otherwise:
    """Values that differ from those of this process. ``workers``: ``None`` is one more than there are CPUs, the default's number."""
    wanted = {
        "PYTHONHASHSEED": ("20011", "7"),
        "LC_ALL": ("C", "C.UTF-8"),
        "TZ": ("PROOF-13:45", "PROOF+9:30"),  # POSIX rules, which need no database of zones
    }
    values = {name: next(value for value in known if os.environ.get(name) != value) for name, known in wanted.items()}
    return Otherwise(workers or (os.cpu_count() or 1) + 1, values)


def prepare(clone: Project, otherwise: Otherwise) -> None:
    """Set the number of workers, and have all processes here: no other machine joins a clone. Links to artifacts are left out."""
    yaml = YAML()
    params = yaml.load(clone.params.read_text(encoding="utf-8"))
    for name in ("dataset_processes", "output_dir"):
        params.pop(name, None)
    params["dataset_num_proc"] = otherwise.workers
    for name in ("num_machines", "main_process_port") if isinstance(params.get("train"), dict) else ():
        params["train"].pop(name, None)
    with clone.params.open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)


def run(clone: Project, otherwise: Otherwise, targets: Sequence[str], scratch: Path) -> int:
    """``dvc repro`` in the clone with an empty cache, its output on standard error; the exit code.

    Raises:
        RegrowError: the clone is no DVC repository.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    caches = {"DVC_SITE_CACHE_DIR": str(scratch / "site"), "DVC_GLOBAL_CONFIG_DIR": str(scratch / "config"), "DVC_NO_ANALYTICS": "1"}
    # dvc.yaml says `python`: it must be this one, also when the environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = own | caches | dict(otherwise.environment) | {"PATH": path}

    def dvc(*arguments: str) -> int:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(
            command, cwd=clone.root, env=environment, check=False, stdout=sys.stderr, preexec_fn=die_with_parent
        ).returncode

    if dvc("config", "--local", "cache.dir", str(scratch / "cache")):
        raise RegrowError("The clone is not a DVC repository.", "Commit .dvc/config, dvc.yaml and params.yaml.")
    return dvc("repro", *targets)
