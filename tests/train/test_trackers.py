"""Trackers are told what log.csv says, and change nothing that is trained."""

from __future__ import annotations

import csv
import re
import signal
import sys
import urllib.request
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Interrupted, MissingExtra, RegrowError
from stages.train.trackers.services import Prometheus
from tests.train.workspace import FULL, LORA, Heard, SignalAt, finished, train

SECRET = "sk-not-to-be-seen"
SWITCHES: dict[str, dict[str, Any]] = {
    "use_wandb": {"wandb_project": "regrow", "wandb_mode": "offline"},
    "use_mlflow": {"mlflow_experiment_name": "regrow"},
    "use_comet": {"comet_project_name": "regrow", "comet_online": False},
    "use_trackio": {"trackio_project_name": "regrow"},
    "use_tensorboard": {},
    "use_otel_metrics": {"otel_metrics_port": 18431},
}


class Service:
    """Stands in for wandb and records what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: dict[int, dict[str, float]] = {}
        self.watched: list[dict[str, Any]] = []
        self.kept: list[str] = []
        self.exit_codes: list[int] = []
        module: Any = ModuleType("wandb")
        module.init, module.Settings = self._init, lambda **given: given
        monkeypatch.setitem(sys.modules, "wandb", module)

    def _init(self, **given: Any) -> Any:
        self.begun.append(given)
        return SimpleNamespace(
            id=given["id"] or f"run{len(self.begun)}",
            log=self._log,
            watch=lambda model, **told: self.watched.append(told),
            log_model=lambda path, name: self.kept.append(f"{name}:{Path(path).is_dir()}"),
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self.logged.setdefault(step, {}).update(numbers)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


def lines(folder: Path, name: str = "log.csv") -> dict[int, dict[str, float]]:
    rows = csv.DictReader((folder / name).open(encoding="utf-8"))
    return {int(row["step"]): {key: float(value) for key, value in row.items() if key != "step"} for row in rows}


@pytest.mark.shows("use_wandb", "wandb_project", "wandb_entity", "wandb_name", "wandb_mode")
@pytest.mark.parametrize("every", [1, 4])
def test_the_tracker_is_told_what_the_log_says(measured: Path, wandb: Service, every: int) -> None:
    named = {"wandb_project": "p", "wandb_entity": "team", "wandb_name": "first", "wandb_mode": "offline"}
    options = FULL | {"logging_steps": every, "eval_steps": 3}
    trained, _ = train(measured, options | named | {"use_wandb": True})
    for prefix, name in (("train/", "log.csv"), ("eval/", "eval.csv")):
        for step, line in lines(trained.path, name).items():
            told = {prefix + key.removeprefix("eval_"): value for key, value in line.items() if key != "epoch"}
            assert {key: wandb.logged[step][key] for key in told} == pytest.approx(told, rel=1e-5)
    assert {step for step, told in wandb.logged.items() if "train/loss" in told} == set(lines(trained.path))
    begun = wandb.begun[0]
    assert [begun[key] for key in ("project", "entity", "name", "mode", "resume")] == ["p", "team", "first", "offline", "allow"]
    assert begun["config"]["learning_rate"] > 0 and len(begun["config"]["data/packed"]) == 64
    assert wandb.exit_codes == [0]


def test_no_byte_depends_on_being_watched(published: Path, workspace: Path, wandb: Service) -> None:
    trained, _ = train(workspace, LORA | {"use_wandb": True, "wandb_watch": "all", "wandb_log_model": "checkpoint"})
    assert trained.files == finished(published, LORA).files


@pytest.mark.shows("wandb_watch", "wandb_log_model")
@pytest.mark.parametrize(("upload", "kept"), [
    ("end", ["trained"]), ("checkpoint", ["checkpoint-2", "checkpoint-4", "checkpoint-6", "trained"]), (False, []),
])  # fmt: skip
def test_weights_are_watched_and_uploaded_where_asked(workspace: Path, wandb: Service, upload: Any, kept: list[str]) -> None:
    train(workspace, FULL | {"use_wandb": True, "wandb_log_model": upload, "wandb_watch": "gradients" if upload else "false"})
    assert wandb.kept == [f"{name}-run1:True" for name in kept]
    assert wandb.watched == ([{"log": "gradients", "log_freq": 1}] if upload else [])


@pytest.mark.shows("wandb_run_id")
@pytest.mark.parametrize("named", [None, "mine"])
def test_a_resumed_run_goes_on_with_its_own_record(workspace: Path, wandb: Service, named: str | None) -> None:
    options = FULL | {"use_wandb": True} | ({"wandb_run_id": named} if named else {})
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(3, signal.SIGTERM))
    train(workspace, options, progress=Heard())
    assert [begun["id"] for begun in wandb.begun] == [named, named or "run1"]
    assert wandb.exit_codes == [1, 0]
    assert sorted(wandb.logged) == [1, 2, 3, 4, 5, 6]


def test_a_service_that_fails_stops_no_training(published: Path, workspace: Path, wandb: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(numbers: dict[str, float], step: int) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "_log", broken)
    heard = Heard()
    trained, _ = train(workspace, FULL | {"use_wandb": True}, progress=heard)
    assert trained.files == finished(published, FULL).files
    assert [line for line in heard.said if "use_wandb" in line] == [
        "warning: use_wandb: no more is reported there: ConnectionError: no route"
    ]


@pytest.mark.shows("comet_api_key", "comet_experiment_config", "comet_mode", "comet_workspace", "comet_experiment_key")
def test_a_service_that_refuses_stops_it_before_it_begins(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("comet_ml")

    def start(**given: Any) -> None:
        assert (given["mode"], given["workspace"], given["experiment_key"]) == ("get", "team", "k" * 32)
        assert given["experiment_config"]["tags"] == ["a"]
        raise ValueError(f"key {given['api_key']} is not valid")

    module.start, module.ExperimentConfig = start, lambda **given: given
    monkeypatch.setitem(sys.modules, "comet_ml", module)
    named = {"comet_mode": "get", "comet_workspace": "team", "comet_experiment_key": "k" * 32, "comet_experiment_config": {"tags": ["a"]}}
    with pytest.raises(RegrowError, match=r"use_comet: comet_ml does not begin: ValueError: key \(not shown\) is not valid") as caught:
        train(workspace, FULL | named | {"use_comet": True, "comet_api_key": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_missing_package_names_its_extra(workspace: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    missing = {
        "use_comet": "comet_ml",
        "use_tensorboard": "torch.utils.tensorboard",
        "use_otel_metrics": "opentelemetry.exporter.prometheus",
    }
    monkeypatch.setitem(sys.modules, missing.get(switch, switch.removeprefix("use_")), None)
    with pytest.raises(MissingExtra, match=rf"{switch} needs the package .*\n.*pip install 'regrow\["):
        train(workspace, FULL | SWITCHES[switch] | {switch: True})
    assert not (workspace / "data" / "trained").exists()


@pytest.mark.shows("use_mlflow", "mlflow_experiment_name", "mlflow_run_name", "mlflow_tracking_uri", "hf_mlflow_log_artifacts")
def test_mlflow_gets_parameters_metrics_and_weights(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            told.append(("uri", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"id of {name}"

        def create_run(self, experiment: str, run_name: str) -> Any:
            told.append(("run", experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def __getattr__(self, name: str) -> Any:
            return lambda *given, **more: told.append((name, *given, *more.values()))

    module: Any = ModuleType("mlflow")
    module.MlflowClient = Client
    monkeypatch.setitem(sys.modules, "mlflow", module)
    named = {"mlflow_experiment_name": "e", "mlflow_run_name": "n", "mlflow_tracking_uri": "http://host", "hf_mlflow_log_artifacts": True}
    trained, _ = train(workspace, FULL | named | {"use_mlflow": True, "save_steps": 3})
    assert told[:2] == [("uri", "http://host"), ("run", "id of e", "n")]
    losses = {entry[4]: entry[3] for entry in told if entry[0] == "log_metric" and entry[2] == "train/loss"}
    assert losses == pytest.approx({step: line["loss"] for step, line in lines(trained.path).items()}, rel=1e-5)
    assert [entry[3] for entry in told if entry[0] == "log_artifacts"] == ["checkpoint-3", "checkpoint-6", "trained"]
    assert told[-1] == ("set_terminated", "r1", "FINISHED")


@pytest.mark.shows("use_comet", "comet_project_name", "comet_online")
@pytest.mark.shows("use_trackio", "trackio_project_name", "trackio_run_name", "trackio_space_id")
@pytest.mark.parametrize("switch", ["use_comet", "use_trackio"])
def test_comet_and_trackio_get_the_log(workspace: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    begun: dict[str, Any] = {}
    logged: dict[int, float] = {}

    class Run:
        name = "n"

        def get_key(self) -> str:
            return "key"

        def log(self, numbers: dict[str, float], step: int) -> None:
            logged[step] = numbers["train/loss"]

        log_metrics = log

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    def begin(**given: Any) -> Run:
        begun.update(given)
        return Run()

    comet: Any = ModuleType("comet_ml")
    comet.start, comet.ExperimentConfig = begin, lambda **given: given
    trackio: Any = ModuleType("trackio")
    trackio.init = begin
    monkeypatch.setitem(sys.modules, "comet_ml", comet)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    named: dict[str, dict[str, Any]] = {
        "use_comet": {"comet_project_name": "p", "comet_online": False},
        "use_trackio": {"trackio_project_name": "p", "trackio_run_name": "n", "trackio_space_id": "me/s"},
    }
    trained, _ = train(workspace, FULL | named[switch] | {switch: True})
    assert logged == pytest.approx({step: line["loss"] for step, line in lines(trained.path).items()}, rel=1e-5)
    expected: dict[str, dict[str, Any]] = {
        "use_comet": {"project_name": "p", "online": False},
        "use_trackio": {"project": "p", "name": "n", "space_id": "me/s"},
    }
    assert {key: begun[key] for key in expected[switch]} == expected[switch]


@pytest.mark.shows("use_tensorboard")
def test_tensorboard_files_hold_the_log(workspace: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained, _ = train(workspace, FULL | {"use_tensorboard": True})
    events = reading.EventAccumulator(str(workspace / "data" / "metrics" / "train" / "tensorboard"))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(
        {step: line["loss"] for step, line in lines(trained.path).items()}, rel=1e-5
    )


@pytest.mark.shows("use_otel_metrics", "otel_metrics_host", "otel_metrics_port")
def test_prometheus_reads_the_newest_numbers(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus")
    pages: list[str] = []
    end = Prometheus.end

    def read_and_end(tracker: Prometheus, *, finished: bool) -> None:
        pages.append(urllib.request.urlopen("http://127.0.0.1:18431/metrics").read().decode())
        end(tracker, finished=finished)

    monkeypatch.setattr(Prometheus, "end", read_and_end)
    train(workspace, FULL | {"use_otel_metrics": True, "otel_metrics_host": "127.0.0.1", "otel_metrics_port": 18431})
    assert re.search(r"^regrow_train_step\{.*\} 6.0$", pages[0], re.M) and re.search(r"^regrow_train_loss\{", pages[0], re.M)


@pytest.mark.parametrize("switch", ["use_wandb", "use_mlflow", "use_comet", "use_trackio"])
def test_the_real_packages_take_it_offline(workspace: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    """Where the package is installed: the whole way to its files on disk, without an account."""
    monkeypatch.setenv("TRACKIO_DIR", str(workspace / "trackio"))  # read when the package is imported
    pytest.importorskip({"use_comet": "comet_ml"}.get(switch, switch.removeprefix("use_")))
    heard = Heard()
    train(workspace, FULL | SWITCHES[switch] | {switch: True}, progress=heard)
    assert not [line for line in heard.said if "warning" in line]
    written = workspace / ("trackio" if switch == "use_trackio" else "data/metrics/train")
    assert any(path.is_file() and path.stat().st_size for path in written.rglob("*"))


class HubDouble:
    """Stands in for huggingface_hub's HfApi: what it was asked to make, and the files of every upload."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.uploads: list[tuple[str | None, set[str]]] = []
        self.to: list[dict[str, Any]] = []

    def create_repo(self, repo_id: str, **given: Any) -> Any:
        self.made.append({"repo": repo_id, **given})
        return SimpleNamespace(repo_id=repo_id)

    def create_branch(self, **given: Any) -> None:
        self.made.append(given)

    def upload_folder(self, *, folder_path: str, path_in_repo: str | None = None, ignore_patterns: Any = (), **given: Any) -> None:
        names = [path.name for path in Path(folder_path).iterdir()]
        self.uploads.append((path_in_repo, {name for name in names if not any(fnmatch(name, pattern) for pattern in ignore_patterns)}))
        self.to.append(given)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> HubDouble:
    double = HubDouble()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: double)
    return double


@pytest.mark.shows("hub_model_id", "hub_strategy")
@pytest.mark.parametrize(("strategy", "places"), [
    ("end", [None]),
    ("every_save", [None, None, None]),
    ("checkpoint", [None, "last-checkpoint", None, "last-checkpoint", None]),
    ("all_checkpoints", [None, "checkpoint-3", None, "checkpoint-6", None]),
])  # fmt: skip
def test_weights_go_to_the_hub(published: Path, workspace: Path, hub: HubDouble, strategy: str, places: list[str | None]) -> None:
    trained, _ = train(workspace, LORA | {"hub_model_id": "me/model", "hub_strategy": strategy, "save_steps": 3})
    assert hub.made == [{"repo": "me/model", "private": True, "exist_ok": True}]
    assert [place for place, _ in hub.uploads] == places
    assert hub.uploads[-1][1] >= {"adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json", "log.csv"}
    for place, names in hub.uploads[:-1]:
        assert "adapter_model.safetensors" in names and ("optimizer.pt" in names) == (place is not None)
    assert trained.files == finished(published, LORA | {"save_steps": 3}).files


@pytest.mark.shows("hub_revision")
def test_they_go_to_the_branch_asked_for(workspace: Path, hub: HubDouble) -> None:
    train(workspace, LORA | {"hub_model_id": "me/model", "hub_strategy": "end", "hub_revision": "next"})
    assert hub.made[1] == {"repo_id": "me/model", "branch": "next", "exist_ok": True}
    assert hub.to == [{"commit_message": "The trained model", "repo_id": "me/model", "revision": "next"}]


def test_a_hub_that_refuses_is_told_before_training(workspace: Path, hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("403: you have no right to write there")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(RegrowError, match="hub_model_id: huggingface_hub does not begin: PermissionError: 403: you have no right"):
        train(workspace, LORA | {"hub_model_id": "me/model"})
