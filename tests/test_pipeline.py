"""The whole pipeline through `dvc repro`, in clones of this repository with a tiny model and local data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.options.test_reruns import STATED
from tests.tiny import save_model, save_tokenizer

ROOT = Path(__file__).parent.parent
ALL = ["fetch", "tokenize", "dedupe", "pack", "train", "merge", "quantize", "eval"]

pytestmark = pytest.mark.slow

PARAMS: dict[str, Any] = {
    "base_model": "../model",
    "tokenizer_config": "../model",
    "datasets": [{"path": "../rows.jsonl", "type": "chat_template"}],
    "dataset_exact_deduplication": True,
    "val_set_size": 8,
    "sequence_len": 64,
    "sample_packing": True,
    "adapter": "lora",
    "lora_target_linear": True,
    "lora_dropout": 0.1,
    "max_steps": 6,
    "save_steps": 2,
    "learning_rate": 0.01,
    "eval": {"samples": 1, "max_new_tokens": 4, "choices": ["yes", "no"]},
}


def row(number: int) -> str:
    turns = [{"role": "user", "content": f"is {number} even"}, {"role": "assistant", "content": "no" if number % 2 else "yes"}]
    return json.dumps({"messages": turns}) + "\n"


class Clone:
    """A fresh clone with its own params.yaml, and DVC in it as a user would run it."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(exist_ok=True)
        self.root = parent / "project"
        self.rows = parent / "rows.jsonl"
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, files):
            if not name.startswith(("tests/", "data/options/", "dvc.lock")) and (ROOT / name).exists():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.root / name)
        subprocess.run(["git", "init", "--quiet"], cwd=self.root, check=True)
        save_model(parent / "model")
        save_tokenizer(parent / "model")
        self.rows.write_text("".join(row(number) for number in range(40)), encoding="utf-8")
        self.write({})

    def write(self, changes: Mapping[str, Any]) -> None:
        with (self.root / "params.yaml").open("w", encoding="utf-8") as stream:
            YAML().dump(PARAMS | dict(changes), stream)

    def start(self, *command: str) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        output = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def run(self, *command: str, code: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate()
        assert process.returncode == code, output
        assert "Traceback" not in output
        return output

    def repro(self) -> list[str]:
        """Run `dvc repro`; the stages that ran, without configure."""
        return stages_run(self.run("dvc", "repro"))

    def lock(self) -> dict[str, Any]:
        locked: dict[str, Any] = YAML(typ="safe", pure=True).load(self.root / "dvc.lock")["stages"]
        return {name: locked[name] for name in ALL}


def stages_run(output: str) -> list[str]:
    return [name for name in re.findall(r"Running stage '(\w+)'", output) if name != "configure"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything ran once."""
    clone = Clone(tmp_path_factory.mktemp("first"))
    assert clone.repro() == ALL
    return clone


def test_the_artifacts_are_what_they_say(clone: Clone) -> None:
    metrics = json.loads((clone.root / "data/eval/metrics.json").read_text())
    assert "merged" in json.dumps(metrics) and (clone.root / "data/eval/report.html").stat().st_size > 10_000
    assert "val_set_size" not in (clone.root / "data/options/train.json").read_text()


def test_nothing_runs_a_second_time(clone: Clone) -> None:
    before = (clone.root / "dvc.lock").read_bytes()
    assert stages_run(clone.run("dvc", "repro")) == []
    assert (clone.root / "dvc.lock").read_bytes() == before
    assert clone.run("dvc", "status").split() == ["configure:", "always", "changed"]


TEN_OPTIONS = {
    "chat_template": "chatml",
    "train_on_inputs": True,
    "dataset_exact_deduplication": False,
    "sequence_len": 48,
    "seed": 7,
    "learning_rate": 0.02,
    "lora_r": 4,
    "merge": {"max_shard_size_mb": 7},
    "quantize": ["q8_0"],
    "eval": {"samples": 2},
}


def test_ten_options_make_exactly_the_stages_run_that_the_table_says(clone: Clone) -> None:
    for option, value in TEN_OPTIONS.items():
        inner = next(iter(value)) if isinstance(value, dict) else "type" if option == "quantize" else None
        place = f"{option}.{inner}" if inner else option
        clone.write({option: PARAMS.get(option, {}) | value if isinstance(value, dict) else value})
        planned = re.findall(r"^(\w+): runs$", clone.run("regrow", "plan", code=3), re.MULTILINE)
        clone.run("dvc", "repro", "configure")
        assert tuple(planned) == tuple(stages_run(clone.run("dvc", "repro", "--dry"))) == STATED[place], option
        clone.write({})
        clone.run("dvc", "repro", "configure")
    assert clone.repro() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_epochs": 1.0}, []),
        ({"learning_rate": 0.02}, ALL[4:]),
        ({"sequence_len": 48}, ALL[3:]),
        ({"quantize": ["q8_0"]}, ALL[6:]),
    ],
    ids=["a default written out", "learning_rate", "sequence_len", "quantize"],
)
def test_only_what_depends_on_a_change_runs(clone: Clone, changes: dict[str, Any], expected: list[str]) -> None:
    clone.write(changes)
    assert clone.repro() == expected
    clone.write({})
    assert clone.repro() == [], "going back restores from the run cache"


def test_another_adapter_reaches_the_merged_model_and_no_stage_before_it(clone: Clone) -> None:
    other = clone.root.parent / "other"
    shutil.copytree(clone.root / "data/trained", other)
    merge = {"method": "linear", "weight": 0.5, "others": [{"path": "../other", "weight": 0.5}]}
    clone.write({"merge": merge})
    assert clone.repro() == ["fetch", *ALL[5:]]
    clone.write({"merge": merge | {"weight": 0.25}})
    assert clone.repro() == ALL[5:]
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    before = clone.lock()
    assert clone.repro() == ["fetch", *ALL[5:]]
    assert {name for name in ALL if clone.lock()[name]["outs"] != before[name]["outs"]} == {"fetch", *ALL[5:]}
    clone.write({})
    assert clone.repro() == []


def test_an_appended_row_reaches_everything_and_a_reworded_comment_nothing(clone: Clone) -> None:
    before = clone.lock()
    with clone.rows.open("a", encoding="utf-8") as stream:
        stream.write(row(77))
    assert clone.repro() == ALL
    assert all(clone.lock()[name] != before[name] for name in ALL)
    clone.rows.write_text("".join(row(number) for number in range(40)), encoding="utf-8")
    source = clone.root / "stages/pack/plan.py"
    source.write_text(source.read_text() + "\n# a comment that decides nothing\n")
    assert clone.repro() == [] and clone.lock() == before


def test_a_module_that_a_format_of_your_own_imports_is_watched(clone: Clone) -> None:
    folder = clone.root / "mine"
    folder.mkdir()
    (folder / "words.py").write_text("SUFFIX = '!'\n")
    (folder / "format.py").write_text(
        "from mine.words import SUFFIX\n\n"
        "def convert(row):\n"
        "    return {'messages': [m | {'content': m['content'] + SUFFIX} for m in row['messages']]}\n"
    )
    clone.write({"datasets": [{"path": "../rows.jsonl", "type": "mine.format.convert"}]})
    assert stages_run(clone.run("dvc", "repro", "tokenize")) == ["tokenize"]
    (folder / "words.py").write_text("SUFFIX = '?'\n")
    assert stages_run(clone.run("dvc", "repro", "tokenize")) == ["tokenize"]
    clone.write({"datasets": [{"path": "../rows.jsonl", "type": "not_here.format.convert"}]})
    assert "not_here.format.convert" in clone.run("regrow", "tokenize", code=2)
    clone.write({})
    assert clone.repro() == []


def test_asked_to_stop_a_training_saves_itself_and_says_so(clone: Clone) -> None:
    clone.write({"max_steps": 5000, "save_steps": 5})
    process = clone.start("regrow", "train")
    while process.poll() is None and not reached("train", clone.root, clone.root):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "asked to stop" in output and "Traceback" not in output
    checkpoint = newest_checkpoint(clone)
    clone.write({"max_steps": 5000, "save_steps": 5, "learning_rate": 0.02, "resume_from_checkpoint": str(checkpoint)})
    refused = clone.run("regrow", "train", code=2)
    assert "is a checkpoint of another run:\n  learning_rate: 0.01 there, 0.02 here" in refused
    clone.write({"max_steps": 5000, "save_steps": 5})
    assert "Continuing from the checkpoint of step" in continue_shortly(clone), "what was refused is still there"
    clone.write({})
    assert clone.repro() == []


def newest_checkpoint(clone: Clone) -> Path:
    """In the form that `ls` shows it."""
    found = (clone.root / ".regrow/train").glob("*/checkpoints/checkpoint-*")
    return max(found, key=lambda folder: int(folder.name.rpartition("-")[2])).relative_to(clone.root)


def test_a_stop_sent_to_every_process_saves_too(clone: Clone) -> None:
    """As `timeout` and systemd do. DVC is dead at once, and the stage hears of that as well."""
    clone.write({"max_steps": 5000, "save_steps": 1000, "save_first_step": True})
    process = clone.start("dvc", "repro", "train")
    while process.poll() is None and not any(clone.root.glob(".regrow/train/*/checkpoints/checkpoint-1/complete.json")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)  # ends with the last process that could write
    assert "it saved a checkpoint after step" in output
    assert newest_checkpoint(clone).name != "checkpoint-1"
    clone.write({})
    assert clone.repro() == []


def continue_shortly(clone: Clone) -> str:
    """What training says when it is started again; stopped as soon as it has saved once more."""
    before = set(clone.root.rglob(".regrow/train/*/checkpoints/*/complete.json"))
    process = clone.start("regrow", "train")
    while process.poll() is None and set(clone.root.rglob(".regrow/train/*/checkpoints/*/complete.json")) <= before:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    return process.communicate(timeout=120)[0]


def test_killed_in_every_stage_it_completes_with_the_same_digests(clone: Clone, tmp_path: Path) -> None:
    """A second directory, SIGKILL in each stage: dvc.lock is the first one's, and training resumed from its checkpoint."""
    second = Clone(tmp_path / "second")
    killed = [name for name in ALL if kill_in(second, name)]
    assert len(killed) >= 6, "too few kills hit their stage to prove anything"
    assert "train" in killed
    second.run("dvc", "repro")
    assert second.lock() == clone.lock()


def kill_in(clone: Clone, stage: str) -> bool:
    """Run up to ``stage`` and SIGKILL DVC and all its children while the stage writes. Whether it was still at work."""
    writes = YAML(typ="safe", pure=True).load(clone.root / "dvc.yaml")["stages"][stage]["outs"]
    process = clone.start("dvc", "repro", stage)
    signs = [clone.root / "data/.partial" / Path(writes[-1]).name]
    while process.poll() is None and not all(reached(stage, sign, clone.root) for sign in signs):
        time.sleep(0.005)
    running = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running and not all((clone.root / out).exists() for out in writes)


def reached(stage: str, partial: Path, root: Path) -> bool:
    return any((root / ".regrow/train").rglob("complete.json")) if stage == "train" else partial.exists()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"learning_rte": 1}, 2, ["params.yaml", "learning_rte", "learning_rate"]),
        ({"datasets": [{"path": "../nowhere.jsonl", "type": "chat_template"}]}, 2, ["datasets[0].path", "nowhere.jsonl", "does not exist"]),
        ({"sequence_len": 4}, 2, ["sequence_len", "No training row is left"]),
    ],
    ids=["a misspelt option", "a missing file", "a stage that fails"],
)
def test_a_problem_is_one_message_and_exit_code_2(clone: Clone, changes: dict[str, Any], code: int, words: Sequence[str]) -> None:
    clone.write(changes)
    output = clone.run("regrow", "pack", code=code)
    clone.write({})
    clone.repro()
    for word in words:
        assert word in output


def test_a_new_file_in_a_folder_is_fetched(clone: Clone) -> None:
    folder = clone.root.parent / "folder"
    folder.mkdir()
    (folder / "first.jsonl").write_text(row(0), encoding="utf-8")
    clone.write({"datasets": [PARAMS["datasets"][0] | {"path": str(folder)}]})
    assert stages_run(clone.run("dvc", "repro", "fetch")) == ["fetch"]
    assert stages_run(clone.run("dvc", "repro", "fetch")) == []
    (folder / "second.jsonl").write_text(row(1), encoding="utf-8")
    assert stages_run(clone.run("dvc", "repro", "fetch")) == ["fetch"]
    assert len(list((clone.root / "data/raw/train-00").iterdir())) == 2
    clone.write({})
    clone.repro()


def test_a_stage_alone_goes_through_dvc(clone: Clone) -> None:
    assert stages_run(clone.run("regrow", "dedupe", "--force")) == ["dedupe"]
    assert clone.run("dvc", "status").split() == ["configure:", "always", "changed"]
    refused = clone.run(sys.executable, "-m", "pipeline", "run", "dedupe", code=2)
    assert "regrow dedupe" in refused
