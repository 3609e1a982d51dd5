"""The tracking services. Their packages are extras, loaded where a run asks for them; versions decide nothing that is trained.

Each is opened from the options with explicit arguments. What a package can only be told by the environment is set here, unless
the user has set it: that it reports nothing about its own use.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.options.views import TrainOptions
from stages.train.trackers.tracker import Beginning, Numbers, Plain


class WeightsAndBiases(Plain):
    """https://docs.wandb.ai/ref/python/init"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_module("wandb")
        self._options, self._every = options, beginning.every
        self._run = wandb.init(
            project=options.wandb_project or None,
            entity=options.wandb_entity or None,
            name=options.wandb_name or options.wandb_run_id or None,
            id=beginning.known or options.wandb_run_id or None,
            mode=options.wandb_mode or None,
            resume="allow",
            config=dict(beginning.config),
            dir=str(beginning.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        self.name = self._run.id

    def log(self, step: int, numbers: Numbers) -> None:
        self._run.log(dict(numbers), step=step)

    def watch(self, model: Any) -> None:
        what = self._options.wandb_watch
        if what in ("gradients", "parameters", "all"):
            self._run.watch(model, log=what, log_freq=self._every)

    def keep(self, folder: Path, name: str, *, last: bool) -> None:
        if self._options.wandb_log_model == "checkpoint" or (last and self._options.wandb_log_model == "end"):
            self._run.log_model(path=str(folder), name=f"{name}-{self._run.id}")

    def end(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow(Plain):
    """https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = import_module("mlflow")
        address = options.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _local(beginning.folder / "mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=address)
        self._uploads = bool(options.hf_mlflow_log_artifacts)
        self.name = beginning.known or self._new_run(options)
        if beginning.known is None:
            for key, value in beginning.config.items():
                self._client.log_param(self.name, key, str(value)[:_MLFLOW_LONGEST])
        self._client.update_run(self.name, status="RUNNING")

    def _new_run(self, options: TrainOptions) -> str:
        name = options.mlflow_experiment_name or "Default"
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        run: str = self._client.create_run(experiment, run_name=options.mlflow_run_name or None).info.run_id
        return run

    def log(self, step: int, numbers: Numbers) -> None:
        for key, value in numbers.items():
            self._client.log_metric(self.name, key, float(value), step=step)

    def keep(self, folder: Path, name: str, *, last: bool) -> None:
        if self._uploads:
            self._client.log_artifacts(self.name, str(folder), artifact_path=name)

    def end(self, *, finished: bool) -> None:
        self._client.set_terminated(self.name, "FINISHED" if finished else "KILLED")


_MLFLOW_LONGEST = 6000
"""Characters of a parameter's value that every version of the server takes."""


def _local(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(folder / 'mlflow.db').absolute()}"


class Comet(Plain):
    """https://www.comet.com/docs/v2/api-and-sdk/python-sdk/reference/start/"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        comet = import_module("comet_ml")
        further = {"offline_directory": str(beginning.folder), "auto_param_logging": False, "auto_metric_logging": False}
        self._experiment = comet.start(
            api_key=options.comet_api_key or None,
            workspace=options.comet_workspace or None,
            project_name=options.comet_project_name or None,
            experiment_key=beginning.known or options.comet_experiment_key or None,
            mode=options.comet_mode or None,
            online=options.comet_online,
            experiment_config=comet.ExperimentConfig(**further | (options.comet_experiment_config or {})),
        )
        self._experiment.log_parameters(dict(beginning.config))
        self.name = self._experiment.get_key()

    def log(self, step: int, numbers: Numbers) -> None:
        self._experiment.log_metrics(dict(numbers), step=step)

    def end(self, *, finished: bool) -> None:
        self._experiment.log_other("finished", finished)
        self._experiment.end()


class Trackio(Plain):
    """https://huggingface.co/docs/trackio"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        trackio = import_module("trackio")
        self._run = trackio.init(
            project=options.trackio_project_name or "regrow",
            name=beginning.known or options.trackio_run_name or None,
            space_id=options.trackio_space_id or None,
            config=dict(beginning.config),
            resume="allow",
            embed=False,
        )
        self.name = self._run.name

    def log(self, step: int, numbers: Numbers) -> None:
        self._run.log(dict(numbers), step=step)

    def end(self, *, finished: bool) -> None:
        self._run.finish()


class TensorBoard(Plain):
    """https://docs.pytorch.org/docs/stable/tensorboard.html"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        module = import_module("torch.utils.tensorboard")
        # A resumed run repeats the steps after its checkpoint: what was written of them is purged.
        self._writer = module.SummaryWriter(str(beginning.folder / "tensorboard"), purge_step=beginning.first + 1)
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in beginning.config.items()), beginning.first)

    def log(self, step: int, numbers: Numbers) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def end(self, *, finished: bool) -> None:
        self._writer.close()


class Prometheus(Plain):
    """Gauges of OpenTelemetry, served over HTTP. https://opentelemetry.io/docs/languages/python/exporters/"""

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        exporter = import_module("opentelemetry.exporter.prometheus")
        sdk = import_module("opentelemetry.sdk.metrics")
        client = import_module("prometheus_client")
        self._server, self._thread = client.start_http_server(options.otel_metrics_port, options.otel_metrics_host)
        self._provider = sdk.MeterProvider(metric_readers=[exporter.PrometheusMetricReader()], shutdown_on_exit=False)
        self._meter = self._provider.get_meter("regrow")
        self._gauges: dict[str, Any] = {}

    def log(self, step: int, numbers: Numbers) -> None:
        for key, value in {"train/step": step, **numbers}.items():
            if key not in self._gauges:
                self._gauges[key] = self._meter.create_gauge(f"regrow_{key.replace('/', '_')}")
            self._gauges[key].set(value)

    def end(self, *, finished: bool) -> None:
        self._provider.shutdown()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
