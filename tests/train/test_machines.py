"""`train.num_machines`: processes on several machines. Here they are two commands in one folder, as on two machines that share it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import RegrowError
from pipeline.options.views import RecipeOptions
from pipeline.stage import Job
from stages.train import STAGE
from stages.train.checkpoints.origin import origin_of
from stages.train.machines import Invitation, Line, await_invitation, join, led
from tests.test_pipeline import Clone
from tests.tiny import MINIMAL
from tests.train.workspace import Heard

RUN = {"save_steps": 20, "max_steps": 150}
TWO = RUN | {"train": {"num_processes": 2, "num_machines": 2}}
Machine = subprocess.Popen[str]


class Machines(Clone):
    """A project whose data is packed, trained on two machines."""

    def together(self, meanwhile: Callable[[Machine, Machine], None] = lambda lead, joined: None) -> list[tuple[int, str]]:
        """Exit code and output of the machine that leads and of the one that joins; ``meanwhile`` some steps are trained."""
        speed = self.root / "data" / "metrics" / "train" / "speed.csv"
        speed.unlink(missing_ok=True)
        machines = self.start("regrow", "join"), self.start("regrow", "train", "--force")
        while machines[0].poll() is None and not (speed.exists() and len(speed.read_text(encoding="utf-8").splitlines()) > 30):
            time.sleep(0.02)
        meanwhile(machines[1], machines[0])
        outputs = [machine.communicate(timeout=300)[0] for machine in machines]
        ends = [(machine.returncode, output) for machine, output in zip(machines, outputs, strict=True)]
        return ends[::-1]

    def trained(self) -> Any:
        return json.loads((self.root / "data" / "trained" / "manifest.json").read_text(encoding="utf-8"))["files"]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Machines:
    project = Machines(tmp_path_factory.mktemp("machines"))
    project.write(RUN | {"train": {"num_processes": 2}})
    project.run("regrow", "train")
    return project


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a computer need not lead to it."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


@pytest.mark.slow
@pytest.mark.shows("train.num_machines", "train.main_process_port")
def test_two_machines_end_in_the_bytes_of_one(machines: Machines) -> None:
    """Undisturbed, after one left and after one was asked to stop. The port is free, and so is the next one, as far as anybody knows."""
    expected = machines.trained()
    with socket.socket() as free:
        free.bind(("", 0))
        port = min(free.getsockname()[1], 65534)
    machines.write(RUN | {"train": {"num_processes": 2, "num_machines": 2, "main_process_port": port}})
    (led_code, led), (joined_code, joined) = machines.together()
    assert (led_code, joined_code) == (0, 0), led + joined
    assert "run `regrow join` on each" in led and "has joined, 0 to come" in led and "Joined 127.0.0.1" in joined
    assert machines.trained() == expected

    machines.write(TWO)
    (led_code, led), (joined_code, joined) = machines.together(lambda _, other: other.send_signal(signal.SIGKILL))
    assert (led_code, joined_code) == (2, -signal.SIGKILL) and "has left the run" in led, led
    (led_code, led), (joined_code, joined) = machines.together(lambda _, other: other.send_signal(signal.SIGTERM))
    assert (led_code, joined_code) == (75, 75), led + joined
    assert "Continuing from the checkpoint of step 20" in led and "saved a checkpoint after step" in joined
    assert [code for code, _ in machines.together()] == [0, 0]
    assert machines.trained() == expected
    assert "Traceback" not in led + joined


@pytest.mark.slow
def test_a_run_that_is_led_no_more_ends_where_it_was_joined(machines: Machines) -> None:
    """The leading command and all it started are killed; what another machine had started does not wait for them."""
    machines.write(TWO | {"seed": 7})
    machines.run("dvc", "repro", "pack")

    def kill(lead: Machine, _: Machine) -> None:
        for process in (*processes_of(lead.pid), lead.pid):
            os.kill(process, signal.SIGKILL)

    _, (code, output) = machines.together(kill)
    assert code == 2 and "127.0.0.1, which led the run, has ended it." in output


def processes_of(parent: int) -> list[int]:
    """All that a process has started, and they in turn."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout.split()
    return [process for child in map(int, found) for process in (*processes_of(child), child)]


def job_in(workspace: Path, options: dict[str, Any]) -> Job[Any]:
    """What train is given in a workspace."""
    data = workspace / "data"
    view = STAGE.options.model_validate(RecipeOptions.model_validate(MINIMAL | options).model_dump())
    inputs = {name: open_artifact(data / name) for name in STAGE.reads}
    scratch = workspace / "scratch" / "train" / "test"
    scratch.mkdir(parents=True, exist_ok=True)
    return Job(view, inputs, {}, scratch, workspace, "test", "test", workspace / "cache", data / "metrics" / "train", Heard())


def test_another_run_is_not_joined(workspace: Path) -> None:
    """Said is which option, code or input differs."""
    theirs, mine = (job_in(workspace, {"learning_rate": rate, "train": TWO["train"]}) for rate in (0.1, 0.2))
    ours, other = socket.socketpair()
    with pytest.raises(RegrowError, match=r"leads another run:\n  learning_rate: 0.1 there, 0.2 here"):
        join(mine, Invitation(Line(ours, "elsewhere"), origin_of(theirs, 2, "")))
    assert Line(other).hear() == {
        "stopped": False,
        "message": "elsewhere leads another run:\n  learning_rate: 0.1 there, 0.2 here",
        "remedy": "All machines must see the same folder and have the same packages.",
    }


def test_only_who_knows_the_token_joins(workspace: Path) -> None:
    """Whoever else finds the port is sent away, and an invitation that nobody answers any more is passed over."""
    job = job_in(workspace, {"train": TWO["train"]})
    stale = job.scratch.with_name("stale") / "lead.json"
    stale.parent.mkdir()
    stale.write_text(json.dumps({"address": "127.0.0.1", "port": 1, "token": "", "origin": {}}), encoding="utf-8")
    joined: list[str] = []

    def others() -> None:
        invitation = await_invitation(job.scratch.parent, lambda _: None)
        told = json.loads((job.scratch / "lead.json").read_text(encoding="utf-8"))
        assert (job.scratch / "lead.json").stat().st_mode & 0o077 == 0
        for message in (b"GET / HTTP/1.1\r\n", b"[]\n", b'{"token": "guess"}\n', b"\n"):
            with socket.create_connection(("127.0.0.1", told["port"])) as stranger:
                stranger.sendall(message)
                assert stranger.recv(100) == b""
        invitation.line.tell({"done": "looked"})
        joined.append(str(invitation.line.hear()))

    thread = threading.Thread(target=others)
    thread.start()
    with led(job, 2, 2) as (place, lines):
        thread.join()
    assert [line.machine for line in lines] == [socket.gethostname()] and (place.first, place.count, place.world_size) == (0, 1, 2)
    assert joined == [str({"first": 1, "count": 1, "world_size": 2, "address": "127.0.0.1", "port": place.port})]
    assert not (job.scratch / "lead.json").exists()
