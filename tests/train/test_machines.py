"""`train.num_machines`: processes on several machines. Here they are two commands in one folder, as on two machines that share it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import open_artifact
from pipeline.errors import Interrupted, RegrowError
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
        join(lambda: mine, Invitation(Line(ours, "elsewhere"), origin_of(theirs, 2, "")))
    assert Line(other).hear() == {
        "stopped": False,
        "message": "elsewhere leads another run:\n  learning_rate: 0.1 there, 0.2 here",
        "remedy": "All machines must see the same folder and have the same packages.",
    }


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Something that happens while the block waits."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def knock(job: Job[Any], *messages: dict[str, Any]) -> Line:
    """As a machine does that joins, with all it says sent at once."""
    while not (job.scratch / "lead.json").exists():
        time.sleep(0.01)
    told = json.loads((job.scratch / "lead.json").read_text(encoding="utf-8"))
    connection = socket.create_connection(("127.0.0.1", told["port"]))
    said = [{"token": told["token"], "machine": "another"}, *messages]
    connection.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in said))
    return Line(connection)


def test_a_machine_too_many_is_sent_away(workspace: Path) -> None:
    """However fast what they say arrives, one has a place and the other does not wait until the run has ended."""
    job = job_in(workspace, {"train": TWO["train"]})
    lines: list[Line] = []

    def others() -> None:
        first = knock(job)  # it is not ready yet, so that both are there
        lines.extend([first, knock(job, {"done": "looked"})])

    with meanwhile(others), led(job, 2, 2) as (place, joined):
        assert len(joined) == 1 and place.world_size == 2
        assert [line.hear(20) is None for line in lines] == [True, False]


def test_a_machine_that_leaves_before_the_run_begins_ends_it(workspace: Path) -> None:
    """The others are not waited for in vain."""
    job = job_in(workspace, {"train": {"num_processes": 3, "num_machines": 3}})
    with (
        meanwhile(lambda: knock(job, {"done": "looked"}).close()),
        pytest.raises(RegrowError, match="another has left the run"),
        led(job, 3, 3),
    ):
        pass


def test_a_stop_while_machines_are_awaited(workspace: Path) -> None:
    """It is one message, and no invitation is left; so it is on the machine that waits for the others."""
    job = job_in(workspace, {"train": TWO["train"]})

    def stop() -> None:
        knock(job)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(stop), pytest.raises(Interrupted, match="Training was stopped"):
        STAGE.run(job)
    assert not (job.scratch / "lead.json").exists()

    ours, other = socket.socketpair()
    lead = Line(other)

    def stop_there() -> None:
        assert lead.hear() == {"done": "looked at what is trained"}
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(stop_there), pytest.raises(Interrupted, match="Training was stopped"):
        join(lambda: job, Invitation(Line(ours, "elsewhere"), origin_of(job, 2, "")))
    assert (lead.hear() or {})["stopped"]


def test_what_cannot_be_opened_is_told_to_the_machine_that_leads() -> None:
    """Its message is there too, and not only that a machine has left."""
    ours, other = socket.socketpair()

    def opened() -> Job[Any]:
        raise RegrowError("data/packed is damaged.", "Remove it.")

    with pytest.raises(RegrowError, match="damaged"):
        join(opened, Invitation(Line(ours, "elsewhere"), {}))
    assert Line(other).hear() == {"stopped": False, "message": "data/packed is damaged.", "remedy": "Remove it."}


@pytest.mark.parametrize("above", [0, 1])
def test_a_port_that_is_taken_is_named(workspace: Path, above: int) -> None:
    """It and the one above it."""
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        job = job_in(workspace, {"train": {"num_processes": 2, "num_machines": 2, "main_process_port": port - above}})
        with pytest.raises(RegrowError, match=f"main_process_port: port {port} cannot be had"), led(job, 2, 2):
            pass


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
        strangers = (
            b"GET / HTTP/1.1\r\n",
            b"[]\n",
            b'{"token": "guess"}\n',
            '{"token": "\u00e9\\ud800"}\n'.encode(),
            b"[" * 5000 + b"\n",
            b"\n",
        )
        for message in strangers:
            with socket.create_connection(("127.0.0.1", told["port"])) as stranger:
                stranger.sendall(message)
                assert stranger.recv(100) == b""
        invitation.line.tell({"done": "looked"})
        joined.append(str(invitation.line.hear()))

    with meanwhile(others), led(job, 2, 2) as (place, lines):
        pass
    assert [line.machine for line in lines] == [socket.gethostname()] and (place.first, place.count, place.world_size) == (0, 1, 2)
    assert joined == [str({"first": 1, "count": 1, "world_size": 2, "address": "127.0.0.1", "port": place.port})]
    assert not (job.scratch / "lead.json").exists()
