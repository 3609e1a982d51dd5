"""Every optimizer by its name: it trains and its state survives a checkpoint, or it is refused with what it needs."""

from __future__ import annotations

import signal
import tomllib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import Interrupted, RegrowError
from pipeline.optimizers import BUILT_ON, OPTIMIZERS, PINNED
from pipeline.options.optimizer import OptimizerName
from stages.train.optimizers.build import build_optimizer
from stages.train.optimizers.groups import projected
from stages.train.optimizers.layerwise import Layerwise
from stages.train.optimizers.settings import adam_settings, check_arguments, check_possible
from tests.train.stepping import Weights, asked, differ, step, stepped, tiny_model, view
from tests.train.workspace import FULL, SignalAt, finished, read_log, train

_STEPS = {"schedule_free_radam": 7}  # it waits until the variance can be told
# These compute what adamw_torch computes, elsewhere or in another order.
ADAMW = {"adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"}


@lru_cache(maxsize=1)
def plain() -> Weights:
    return stepped({"optimizer": "adamw_torch"})


def lacking(name: str) -> str | None:
    """What this machine has not, and the optimizer needs."""
    known = OPTIMIZERS[name]
    packages = [package for package in (known.package, BUILT_ON.get(known.package)) if package]
    absent = next((PINNED[package][0] for package in packages if find_spec(package) is None), None)
    return absent or (known.needs if not torch.cuda.is_available() else "") or None


def test_every_name_is_known() -> None:
    assert OPTIMIZERS.keys() == set(get_args(OptimizerName))


@pytest.mark.shows("optimizer")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_and_resumes_or_says_what_it_needs(name: str) -> None:
    missing = lacking(name)
    if missing:
        with pytest.raises(RegrowError, match=f"optimizer: {name} needs .*{missing}") as caught:
            stepped(asked(name))
        assert caught.value.remedy
        return
    with torch.compiler.set_stance("force_eager"):  # torchao compiles for seconds what runs in milliseconds
        found, resumed = (stepped(asked(name), restart=restart, steps=_STEPS.get(name, 3)) for restart in (False, True))
    assert differ(found, stepped({"optimizer": "adamw_torch"}, steps=0)) and all(weights.isfinite().all() for weights in found.values())
    assert name in ADAMW or differ(found, plain())
    assert not differ(found, resumed)


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor", "adopt_adamw", "muon", "dion", "sinkgd"])
def test_state_of_another_precision_than_the_weights_survives(name: str) -> None:
    found, resumed = (stepped(asked(name), restart=restart, dtype=torch.bfloat16) for restart in (False, True))
    assert not differ(found, resumed)


def test_updates_in_the_backward_pass_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(RegrowError, match="galore_adamw_layerwise updates weights before 2 processes could share"):
        stepped(asked("galore_adamw_layerwise"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (asked("lion_pytorch"), "optimizer: lion_pytorch needs the package lion-pytorch, which is not installed"),
        ({"optimizer": "sgd", "optim_args": "momentun=0.9"}, "optim_args: sgd has no argument 'momentun'"),
    ],
)
def test_what_is_missing_is_told_before_the_model_is_loaded(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("stages.train.session.build_trainer", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(RegrowError, match=says):
        train(workspace, FULL | options)


def test_a_package_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.optimizers.build.version", lambda _: "0.0.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    with pytest.raises(RegrowError, match=r"schedulefree is 0\.0\.1 here; results are those of 1\.4\.1") as caught:
        stepped({"optimizer": "schedule_free_sgd"})
    assert caught.value.remedy == "Run: pip install 'regrow[optimizers]'"


def test_extras_bring_the_versions_that_are_asked_for() -> None:
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package, (distribution, version, extra) in PINNED.items():
        assert f"{distribution}=={version}" in extras[extra]
        built_on = BUILT_ON.get(package)
        assert built_on is None or f"{built_on}=={PINNED[built_on][1]}" in extras[extra]


@pytest.mark.shows("adam_beta1", "adam_beta2", "adam_epsilon")
@pytest.mark.parametrize("name", ["adamw_torch", "adopt_adamw", "muon"])
@pytest.mark.parametrize("option", [{"adam_beta1": 0.5}, {"adam_beta2": 0.6}, {"adam_epsilon": 0.1}])
def test_adams_options_reach_it(name: str, option: dict[str, float]) -> None:
    groups = build_optimizer(tiny_model(), view(optimizer=name, **option), 0).param_groups
    ((key, value),) = option.items()
    position = {"adam_beta1": 0, "adam_beta2": 1}.get(key)
    assert (groups[0]["eps"] if position is None else groups[0]["betas"][position]) == value
    assert differ(stepped({"optimizer": name} | option), stepped({"optimizer": name}))


@pytest.mark.shows("adam_beta3", "adam_epsilon2")
def test_came_has_a_third_beta_and_a_second_epsilon() -> None:
    known, options = OPTIMIZERS["came_pytorch"], view(optimizer="came_pytorch", adam_beta3=0.7, adam_epsilon2=1e-9)
    assert adam_settings(options, known.betas, known.epsilons) == {"betas": (0.9, 0.999, 0.7), "eps": (1e-30, 1e-9)}
    if not lacking("came_pytorch"):
        assert build_optimizer(tiny_model(), options, 0).param_groups[0]["betas"] == (0.9, 0.999, 0.7)


@pytest.mark.shows("optim_args")
@pytest.mark.parametrize(
    ("name", "given", "key", "value"),
    [
        ("sgd", "momentum=0.5, nesterov=true", "momentum", 0.5),
        ("sgd", {"momentum": "5e-1", "nesterov": "True"}, "nesterov", True),
        ("rmsprop", {"centered": True, "alpha": 0.5}, "centered", True),
        ("adamw_torch", {"amsgrad": "true"}, "amsgrad", True),
        ("adopt_adamw", "clip_exponent=none", "clip_exponent", None),
        ("muon", {"ns_coefficients": [2, -1.5, 0.5]}, "ns_coefficients", (2, -1.5, 0.5)),
    ],
)
def test_further_arguments(name: str, given: Any, key: str, value: Any) -> None:
    optimizer = build_optimizer(tiny_model(), view(optimizer=name, optim_args=given), 0)
    assert optimizer.param_groups[-1][key] == value
    assert differ(stepped({"optimizer": name, "optim_args": given}), stepped({"optimizer": name}))


@pytest.mark.parametrize(
    ("name", "given", "says", "works"),
    [
        ("sgd", {"momentun": 0.9}, "sgd has no argument 'momentun'", "momentum, dampening"),
        ("sgd", {"lr": 0.9}, "lr has an option of its own", "learning_rate"),
        ("adamw_torch", {"betas": [0.9, 0.99]}, "betas has options of its own", "adam_beta1 or adam_beta2"),
        ("dion", {"momentum": 0.9}, "momentum has an option of its own", "dion_momentum"),
        ("sgd", "momentum", "'momentum' is no name=value", "rank=64"),
        ("adafactor", "clip_threshold=high", "clip_threshold is 'high'", "a number, such as 1.0"),
        ("adafactor", {"eps": 1e-8}, "eps is 1e-08", "a list of 2 numbers"),
        ("adamw_torch", "amsgrad=yes", "amsgrad is 'yes'", "true or false"),
        ("adamw_torch_fused", "foreach=true", "adamw_torch_fused does not take its arguments: .*foreach", "optim_args"),
        ("sgd", {"nesterov": True}, "sgd does not take its arguments: Nesterov momentum requires a momentum", "optim_args"),
    ],
)
def test_wrong_arguments_are_refused(name: str, given: Any, says: str, works: str) -> None:
    with pytest.raises(RegrowError, match=says) as caught:
        stepped(asked(name) | {"optim_args": given})
    assert works in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("given", "works"),
    [
        ({"proj_type": "fill"}, "std or reverse_std"),
        ({"update_proj_gap": 0}, "a whole number of at least 1"),
        ({"rank": "low"}, "a number, such as 128"),
        ({"proj": "randn"}, "random or svd"),
    ],
)
def test_wrong_projections_are_refused(given: dict[str, Any], works: str) -> None:
    """Their package would find out at the first step."""
    with pytest.raises(RegrowError, match=f"optim_args: {next(iter(given))} is ") as caught:
        check_arguments("apollo_adamw", torch.optim.AdamW, given, OPTIMIZERS["apollo_adamw"])
    assert works in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("lomo", {"clip_grad_norm": 1.0}, "clip_grad_norm, but lomo changes weights during the backward pass"),
        ("lion_pytorch", {"use_triton": True}, "use_triton needs the package triton"),
        ("adamw_8bit", {"optim_bits": 32}, "optim_bits is what the name adamw_8bit says"),
        ("adamw_torch", {"capturable": True}, "capturable is for CUDA"),
    ],
)
def test_arguments_that_fail_at_the_first_step_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr("stages.train.optimizers.settings.find_spec", lambda name: None)
    with pytest.raises(RegrowError, match=f"optim_args: {says}"):
        check_possible(name, given, OPTIMIZERS[name])


@pytest.mark.parametrize("options", [{"optimizer": "muon"}, {"optimizer": "dion", "dion_lr": 0.01, "dion_rank_fraction": 0.25}])
def test_a_run_with_two_optimizers_resumes_to_the_bit(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    expected = finished(published, FULL | options)
    assert expected.files != finished(published, FULL).files
    with pytest.raises(Interrupted):
        train(workspace, FULL | options, progress=SignalAt(3, signal.SIGTERM))
    assert train(workspace, FULL | options)[0].files == expected.files


@pytest.mark.skipif(find_spec("schedulefree") is None, reason="schedulefree is an extra")
def test_schedule_free_gives_out_the_average(published: Path, workspace: Path) -> None:
    options = FULL | {"optimizer": "schedule_free_adamw", "lr_scheduler": "constant", "warmup_steps": 2}
    expected = finished(published, options)
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(4, signal.SIGTERM))
    assert train(workspace, options)[0].files == expected.files
    assert [line["learning_rate"] for line in expected.log] == [1e-3] * 6  # the warm-up is the optimizer's own


def test_weights_are_switched_before_they_are_given_out(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any optimizer that trains at one point and is evaluated at another."""

    class TwoPoints(torch.optim.SGD):
        def train(self) -> None:
            pass

        @torch.no_grad()
        def eval(self) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.fill_(0.5)

    monkeypatch.setattr("stages.train.trainer.build_optimizer", lambda model, *_: TwoPoints(model.parameters(), lr=1e-3))
    trained, _ = train(workspace, FULL | {"max_steps": 1})
    assert all((weights == 0.5).all() for weights in load_file(trained.path / "model.safetensors").values())


def test_updates_in_the_backward_pass_are_those_of_the_optimizer_inside() -> None:
    options = {"optimizer": "adamw_torch"}
    model = tiny_model()
    layerwise = Layerwise(build_optimizer(model, view(**options), 0))
    for _ in range(3):
        step(model, layerwise, options)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not differ(dict(model.named_parameters()), plain())


@pytest.mark.shows("optim_target_modules")
@pytest.mark.skipif(find_spec("galore_torch") is None, reason="galore-torch is an extra")
def test_only_target_modules_are_projected() -> None:
    options = asked("galore_adamw") | {"optim_target_modules": ["mlp"], "weight_decay": 0.1}
    model = tiny_model()
    groups = build_optimizer(model, view(**options), 0).param_groups
    mlp = {id(parameter) for name, parameter in model.named_parameters() if ".mlp." in name}
    assert {id(parameter) for group in groups if "rank" in group for parameter in group["params"]} == mlp
    assert [group["weight_decay"] for group in groups if "rank" in group] == [0.1]


@pytest.mark.shows("optim_target_modules")
def test_targets_that_are_not_there_are_refused() -> None:
    with pytest.raises(RegrowError, match="optim_target_modules: 'nope' matches no linear layer") as caught:
        projected(tiny_model(), ["mlp", "nope"])
    assert "down_proj" in str(caught.value.remedy)
    assert len(projected(tiny_model(), "all_linear")) == 14


def test_a_run_learns(workspace: Path) -> None:
    log = read_log(train(workspace, FULL | {"optimizer": "adopt_adamw", "learning_rate": 3e-3, "num_epochs": 4})[0])
    assert log[-1]["loss"] < log[0]["loss"]
