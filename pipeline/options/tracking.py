"""Where a run is reported. Read by train; none of it changes what is trained."""

from __future__ import annotations

from typing import Any

from pipeline.options.schema import Group, not_yet


class WeightsAndBiases(Group):
    """Weights & Biases."""

    use_wandb: bool | None = not_yet("Report to Weights & Biases; on when wandb_project is set.", needs="wandb", execution=True)
    wandb_project: str | None = not_yet("Project.", needs="wandb", execution=True, idle=("",))
    wandb_entity: str | None = not_yet("Team.", needs="wandb", execution=True, idle=("",))
    wandb_name: str | None = not_yet("Name of the run.", needs="wandb", execution=True, idle=("",))
    wandb_run_id: str | None = not_yet("Id of the run, to go on with one.", needs="wandb", execution=True, idle=("",))
    wandb_mode: str | None = not_yet("online, offline or disabled.", needs="wandb", execution=True, idle=("", "disabled"))
    wandb_watch: str | None = not_yet("Report gradients or weights.", needs="wandb", execution=True, idle=("", "false"))
    wandb_log_model: str | None = not_yet("Upload weights: checkpoint or end.", needs="wandb", execution=True, idle=("", "false"))


class MLflow(Group):
    """MLflow."""

    use_mlflow: bool | None = not_yet("Report to MLflow; on when mlflow_experiment_name is set.", needs="mlflow", execution=True)
    mlflow_tracking_uri: str | None = not_yet("Address of the server.", needs="mlflow", execution=True, secret=True, idle=("",))
    mlflow_experiment_name: str | None = not_yet("Experiment.", needs="mlflow", execution=True, idle=("",))
    mlflow_run_name: str | None = not_yet("Name of the run.", needs="mlflow", execution=True, idle=("",))
    hf_mlflow_log_artifacts: bool | None = not_yet("Upload checkpoints.", needs="mlflow", execution=True)


class Comet(Group):
    """Comet."""

    use_comet: bool | None = not_yet("Report to Comet; on when comet_project_name is set.", needs="comet-ml", execution=True)
    comet_api_key: str | None = not_yet(
        "Key; never written to any artifact. Better in the variable COMET_API_KEY.",
        needs="comet-ml",
        execution=True,
        secret=True,
        idle=("",),
    )
    comet_workspace: str | None = not_yet("Workspace.", needs="comet-ml", execution=True, idle=("",))
    comet_project_name: str | None = not_yet("Project.", needs="comet-ml", execution=True, idle=("",))
    comet_experiment_key: str | None = not_yet("Key of the experiment, to go on with one.", needs="comet-ml", execution=True, idle=("",))
    comet_mode: str | None = not_yet("create, get, or get_or_create.", needs="comet-ml", execution=True, idle=("",))
    comet_online: bool | None = not_yet("Send data, or keep it in files.", needs="comet-ml", execution=True, idle=())
    comet_experiment_config: dict[str, Any] | None = not_yet("Further settings.", needs="comet-ml", execution=True, secret=True, idle=({},))


class Trackio(Group):
    """Trackio."""

    use_trackio: bool | None = not_yet("Report to Trackio; on when trackio_project_name is set.", needs="trackio", execution=True)
    trackio_project_name: str | None = not_yet("Project.", needs="trackio", execution=True, idle=("",))
    trackio_run_name: str | None = not_yet("Name of the run.", needs="trackio", execution=True, idle=("",))
    trackio_space_id: str | None = not_yet("Space on the hub; default this machine.", needs="trackio", execution=True, idle=("",))


class LocalMetrics(Group):
    """TensorBoard files and a metrics endpoint."""

    use_tensorboard: bool | None = not_yet("Write TensorBoard files.", needs="tensorboard", execution=True)
    use_otel_metrics: bool | None = not_yet("Serve metrics for Prometheus.", False, needs="opentelemetry", execution=True)
    otel_metrics_host: str | None = not_yet("Host to listen on.", "localhost", execution=True, idle=())
    otel_metrics_port: int | None = not_yet("Port to listen on.", 8000, execution=True, idle=(), ge=1, le=65535)
