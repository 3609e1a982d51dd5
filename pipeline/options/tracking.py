"""Where a run is reported. Read by train; none of it changes what is trained."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pipeline.options.schema import Group, option

_told = partial(option, execution=True)
_Off = Literal["", "false", False]
_SWITCH = "True"


class WeightsAndBiases(Group):
    """Weights & Biases."""

    use_wandb: bool | None = _told(None, "Report to Weights & Biases.", extras=((_SWITCH, "wandb", "wandb"),))
    wandb_project: str | None = _told(None, "Project.")
    wandb_entity: str | None = _told(None, "Team.")
    wandb_name: str | None = _told(None, "Name of the run.")
    wandb_run_id: str | None = _told(None, "Id of the run, to go on with one. A resumed run goes on with its own.")
    wandb_mode: Literal["online", "offline", "shared", "disabled", ""] | None = _told(
        None, "offline: keep it in data/metrics/train, for `wandb sync`; disabled: no report."
    )
    wandb_watch: Literal["gradients", "parameters", "all"] | _Off | None = _told(None, "Report histograms of gradients or weights.")
    wandb_log_model: Literal["checkpoint", "end"] | _Off | None = _told(None, "Upload the trained weights, or every checkpoint too.")


class MLflow(Group):
    """MLflow."""

    use_mlflow: bool | None = _told(None, "Report to MLflow.", extras=((_SWITCH, "mlflow", "mlflow"),))
    mlflow_tracking_uri: str | None = _told(
        None, "Address of the server, or a folder; unset: MLFLOW_TRACKING_URI, or else data/metrics/train/mlflow.", secret=True
    )
    mlflow_experiment_name: str | None = _told(None, "Experiment.")
    mlflow_run_name: str | None = _told(None, "Name of the run.")
    hf_mlflow_log_artifacts: bool | None = _told(None, "Upload checkpoints and the trained weights.")


class Comet(Group):
    """Comet."""

    use_comet: bool | None = _told(None, "Report to Comet.", extras=((_SWITCH, "comet_ml", "comet"),))
    comet_api_key: str | None = _told(None, "Key; never written to any artifact. Better in the variable COMET_API_KEY.", secret=True)
    comet_workspace: str | None = _told(None, "Workspace.")
    comet_project_name: str | None = _told(None, "Project.")
    comet_experiment_key: str | None = _told(None, "Key of the experiment, to go on with one. A resumed run goes on with its own.")
    comet_mode: Literal["create", "get", "get_or_create", ""] | None = _told(None, "create, get, or get_or_create.")
    comet_online: bool | None = _told(None, "false: keep it in data/metrics/train, for `comet upload`.")
    comet_experiment_config: dict[str, Any] | None = _told(None, "Further settings of comet_ml.ExperimentConfig.", secret=True)


class Trackio(Group):
    """Trackio."""

    use_trackio: bool | None = _told(None, "Report to Trackio.", extras=((_SWITCH, "trackio", "trackio"),))
    trackio_project_name: str | None = _told(None, "Project.")
    trackio_run_name: str | None = _told(None, "Name of the run.")
    trackio_space_id: str | None = _told(None, "Space on the hub; default this machine.")


class LocalMetrics(Group):
    """TensorBoard files and a metrics endpoint."""

    use_tensorboard: bool | None = _told(
        None, "Write files for TensorBoard to data/metrics/train/tensorboard.", extras=((_SWITCH, "tensorboard", "tensorboard"),)
    )
    use_otel_metrics: bool = _told(False, "Serve the numbers for Prometheus while training.", extras=((_SWITCH, "opentelemetry", "otel"),))
    otel_metrics_host: str = _told("localhost", "Host to listen on.", min_length=1)
    otel_metrics_port: int = _told(8000, "Port to listen on.", ge=1, le=65535)


NAMED_BY = {
    "use_wandb": "wandb_project",
    "use_mlflow": "mlflow_experiment_name",
    "use_comet": "comet_project_name",
    "use_trackio": "trackio_project_name",
}
"""What turns a tracker on where its switch is not set."""

SETTINGS = {
    "use_wandb": tuple(name for name in WeightsAndBiases.model_fields if name.startswith("wandb_")),
    "use_mlflow": tuple(name for name in MLflow.model_fields if "mlflow_" in name),
    "use_comet": tuple(name for name in Comet.model_fields if name.startswith("comet_")),
    "use_trackio": tuple(name for name in Trackio.model_fields if name.startswith("trackio_")),
    "use_otel_metrics": tuple(name for name in LocalMetrics.model_fields if name.startswith("otel_")),
}
"""Options that mean something only while the switch is on."""
