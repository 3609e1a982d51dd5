"""Machines that train together: one leads, and the others join it in the same folder, which all of them must see.

The leading one is where DVC runs the stage. It leaves an invitation in the stage's scratch folder; `regrow join` on another
machine finds it there and holds one connection open for as long as the run lasts, so that each side notices at once when
the other has ended. What is trained goes through torch.distributed, never through this connection.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from pipeline.errors import Interrupted, RegrowError
from pipeline.options.views import TrainOptions
from pipeline.stage import Job
from stages.train.checkpoints.origin import differences, origin_of
from stages.train.loop.stopping import stopped_anywhere

_INVITATION = "lead.json"
_HELLO = 10.0
"""Seconds that someone who connects has to show the token."""
_LONGEST = 2**20
"""Bytes of a message."""
_POLL = 0.5


End = TypeVar("End", bound="HasFileno")


class HasFileno(Protocol):
    """A pipe, a socket, a :class:`Line`."""

    def fileno(self) -> int:
        """Its number for the system."""


@dataclass(frozen=True)
class Place:
    """Which processes of a run this machine starts, and where all of them meet.

    Attributes:
        first: rank of its first process.
        count: of its processes.
        world_size: of the processes of all machines.
        address, port: where process 0 listens.
    """

    first: int
    count: int
    world_size: int
    address: str
    port: int


class Line:
    """A connection to another machine: one JSON object a line. ``machine`` is its host name."""

    def __init__(self, connection: socket.socket, machine: str = "") -> None:
        self.machine = machine
        self._connection = connection

    def fileno(self) -> int:
        """For those who wait for several of them."""
        return self._connection.fileno()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send it. Whoever has hung up is noticed by :meth:`hear`."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, within: float | None = None) -> dict[str, Any] | None:
        """The next message; ``None`` when the other side has hung up, says what is none, or is not done ``within`` these seconds.

        Nothing is read beyond it: who waits for several lines would not be told of what has been read already.
        """
        said, until = bytearray(), None if within is None else time.monotonic() + within
        try:
            while not said.endswith(b"\n"):
                self._connection.settimeout(None if until is None else max(until - time.monotonic(), 0.001))
                if not (byte := self._connection.recv(1)) or len(said) == _LONGEST:
                    return None
                said += byte
            self._connection.settimeout(None)
            message = json.loads(said)
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def led(job: Job[TrainOptions], count: int, machines: int) -> Iterator[tuple[Place, list[Line]]]:
    """Wait until all machines have joined; this one's place, and a line to each of the others.

    Raises:
        RegrowError: the port is not free, a machine left or has something else to train.
    """
    given, own = job.options.train.main_process_port, count // machines
    address = os.environ.get("MASTER_ADDR") or socket.gethostname()
    with ExitStack() as held:
        # Who comes when all are there finds a closed door, and does not wait until the run has ended.
        with _listen(given) as door, _invitation(job, count, address, door.getsockname()[1]) as token:
            if given:
                _listen(given + 1).close()
            job.progress.say(f"Waiting for {machines - 1} of {machines} machines: run `regrow join` on each, in this folder.")
            lines = _gather(door, token, machines - 1, held, job.progress.say)
        port = given + 1 if given else free_port()
        for number, line in enumerate(lines, 1):
            line.tell(asdict(Place(number * own, own, count, address, port)))
        yield Place(0, own, count, address, port), lines


def _listen(port: int | None) -> socket.socket:
    """On the ``port``, or any that is free."""
    try:
        return socket.create_server(("", port or 0))
    except OSError as error:
        raise RegrowError(
            f"train.main_process_port: port {port} cannot be had on this machine: {os.strerror(error.errno or 0)}.",
            "Write another (it and the one above it are used), or remove it: any that are free are taken then.",
        ) from None


def _gather(door: socket.socket, token: str, wanted: int, held: ExitStack, say: Callable[[str], None]) -> list[Line]:
    """Lines to so many machines, which all are ready: they have looked at what they are to train. One that leaves ends the run."""
    knocking: list[Line] = []
    joined: list[Line] = []
    while len(joined) < wanted:
        ends: list[socket.socket | Line] = [door, *knocking, *joined]
        for source in ready_ends(ends):
            if isinstance(source, socket.socket):
                if (line := _welcome(source, token)) is not None:
                    held.callback(line.close)
                    knocking.append(line)
            elif (failure := outcome(source)) is not None:
                raise failure
            elif len(joined) < wanted:
                knocking.remove(source)
                joined.append(source)
                say(f"{source.machine} has joined, {wanted - len(joined)} to come.")
    for line in knocking:
        line.close()
    return joined


@contextmanager
def _invitation(job: Job[TrainOptions], count: int, address: str, port: int) -> Iterator[str]:
    """A file that says where to join, and what is trained; readable by this user alone. Yields the token in it."""
    token = secrets.token_hex(16)
    told = {"address": address, "port": port, "token": token, "origin": origin_of(job, count, "")}
    path = job.scratch / _INVITATION
    draft = path.with_suffix(".partial")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(told, file)
    draft.replace(path)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def _welcome(door: socket.socket, token: str) -> Line | None:
    """The next who knocks, if the token is right."""
    connection, _ = door.accept()
    line = Line(connection)
    hello = line.hear(_HELLO) or {}
    if not secrets.compare_digest(str(hello.get("token")).encode(errors="replace"), token.encode()):
        line.close()
        return None
    line.machine = str(hello.get("machine"))
    return line


@dataclass(frozen=True)
class Invitation:
    """Where another machine leads a run, and what it trains."""

    line: Line
    origin: Mapping[str, Any]


def await_invitation(runs: Path, say: Callable[[str], None]) -> Invitation:
    """The invitation in one of the folders in ``runs``, as soon as there is one that somebody answers.

    Raises:
        Interrupted: a stop was asked for.
    """
    said = False
    with stopped_anywhere():
        while True:
            for path in sorted(runs.glob(f"*/{_INVITATION}")):
                if (found := _answered(path)) is not None:
                    return found
            if not said:
                say("Waiting for a run that another machine leads in this folder (`dvc repro` with train.num_machines there).")
                said = True
            time.sleep(_POLL)


def _answered(path: Path) -> Invitation | None:
    """One whose run was killed is still there, and nobody listens any more."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        connection = socket.create_connection((told["address"], told["port"]), _HELLO)
    except (OSError, ValueError, KeyError):
        return None
    connection.settimeout(None)
    line = Line(connection, str(told["address"]))
    line.tell({"token": told["token"], "machine": socket.gethostname()})
    return Invitation(line, told["origin"])


def join(opened: Callable[[], Job[TrainOptions]], invitation: Invitation) -> None:
    """Take part in the run that another machine leads, until it ends; it is told what goes wrong here, ``opened`` included.

    Raises:
        RegrowError: what is trained there is something else here; the leading machine has ended; what a process of this one raised.
        Interrupted: the run was asked to stop, on whichever machine.
    """
    line = invitation.line
    try:
        with stopped_anywhere():
            _take_part(opened(), invitation)
    except RegrowError as error:
        line.tell({"stopped": isinstance(error, Interrupted), "message": error.message, "remedy": error.remedy})
        raise
    finally:
        line.close()


def _take_part(job: Job[TrainOptions], invitation: Invitation) -> None:
    from stages.train.processes import train_in_place

    line = invitation.line
    found = list(differences(invitation.origin, origin_of(job, job.options.train.num_processes, "")))
    if found:
        raise RegrowError(
            f"{line.machine} leads another run:\n  " + "\n  ".join(found),
            "All machines must see the same folder and have the same packages.",
        )
    line.tell({"done": "looked at what is trained"})
    job.progress.say(f"Told {line.machine} that this machine is ready; the run begins when all are.")
    if (told := line.hear()) is None:
        raise RegrowError(
            f"{line.machine}, which leads the run, has ended it, or had all its machines already.",
            "Run `regrow join` again when it waits for machines.",
        )
    job.progress.say(f"Joined {line.machine}.")
    train_in_place(job, Place(**told), [line])
    line.tell({"done": "trained"})


def leader_gone(line: Line) -> RegrowError:
    """What there is to say where the leading machine has hung up."""
    return RegrowError(f"{line.machine}, which led the run, has ended it.", "Run `regrow join` again when it trains again.")


def outcome(line: Line) -> RegrowError | None:
    """How what a machine that joined is doing has ended; ``None``: well."""
    said = line.hear()
    if said is None:
        return RegrowError(
            f"{line.machine} has left the run.", "Run the same commands again on all machines: they go on from the newest checkpoint."
        )
    if "done" in said:
        return None
    kind = Interrupted if said["stopped"] else RegrowError
    return kind(f"On {line.machine}: {said['message']}", said["remedy"])


def ready_ends(sources: Sequence[End]) -> list[End]:
    """Those with something to read, as soon as there is one."""
    found = {source.fileno(): source for source in sources}
    return [found[cast(int, number)] for number in wait(list(found))]


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
        return port
