"""The server that generates answers: how it is started, and where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import MissingExtra, RegrowError
from pipeline.options.online import VllmServer
from pipeline.project import Project
from pipeline.vllm_server import command, require_vllm, serve


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("base", "tokenizer"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "manifest.json").write_text("{}", encoding="utf-8")
    return Project(tmp_path)


def flags(made: list[str]) -> dict[str, str]:
    """Values behind the flags of a command."""
    return {flag: value for flag, value in zip(made, [*made[1:], ""], strict=True) if flag.startswith("--")}


def test_the_command_says_what_the_options_say(project: Project) -> None:
    options = VllmServer(
        tensor_parallel_size=2,
        data_parallel_size=3,
        gpu_memory_utilization=0.5,
        dtype="bfloat16",
        max_model_len=1024,
        enable_prefix_caching=False,
        host="::1",
        port=9000,
        reasoning_parser="deepseek_r1",
    )
    made = command(project, options)
    assert made[made.index("serve") + 1] == str(project.data / "base")
    found = flags(made)
    assert found["--tokenizer"] == str(project.data / "tokenizer")
    expected = {"tensor-parallel-size": "2", "data-parallel-size": "3", "gpu-memory-utilization": "0.5", "dtype": "bfloat16"}
    expected |= {"max-model-len": "1024", "host": "::1", "port": "9000", "reasoning-parser": "deepseek_r1"}
    assert {name: found[f"--{name}"] for name in expected} == expected
    assert "--no-enable-prefix-caching" in made and "--weight-transfer-config" in made


def test_defaults_and_reasoning_that_is_switched_off(project: Project) -> None:
    made = command(project, VllmServer(enable_reasoning=False, reasoning_parser="deepseek_r1"))
    found = flags(made)
    assert (found["--host"], found["--port"], found["--gpu-memory-utilization"]) == ("0.0.0.0", "8000", "0.9")
    assert not {"--reasoning-parser", "--max-model-len", "--enable-prefix-caching"} & set(made)


def test_there_must_be_a_model(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="is not there yet"):
        command(Project(tmp_path), VllmServer())


def test_refused_without_a_gpu_and_without_the_package(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RegrowError, match="vllm-serve needs a CUDA GPU, and this machine has none"):
        serve(project, VllmServer())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("pipeline.vllm_server.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="'vllm'"):
        require_vllm("x", "y")
