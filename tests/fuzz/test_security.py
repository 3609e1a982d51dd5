"""What hostile input could do besides breaking things: leave a sandbox or a folder, run code, take time or memory, carry secrets away."""

from __future__ import annotations

import ast
import io
import json
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import bounded
from pipeline.chat_templates import built_in
from pipeline.errors import RegrowError
from pipeline.options.tokenizer import TokenizerSource
from stages.fetch.chat_template import choose_template
from stages.fetch.wheel import extract
from stages.tokenize.example import BadRow
from stages.tokenize.template import ChatTemplate
from tests.fetch.made import fetch, link, make_wheel, serve, write
from tests.fuzz import templates
from tests.fuzz.command import regrow
from tests.fuzz.tokenizers import PICKLE, make_model

ROOT = Path(__file__).parent.parent.parent
CONVERSATION = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


# Chat templates.


@pytest.mark.parametrize("expression", templates.ESCAPES)
def test_a_template_sees_the_conversation_and_nothing_else(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGROW_CANARY", templates.CANARY)
    for text in (
        f"{{{{ {expression} }}}}",
        f"{{% set x = {expression} %}}{{{{ x }}}}",
        f"{{% for x in {expression} %}}{{{{ x }}}}{{% endfor %}}",
    ):
        try:
            printed = str(ChatTemplate(text, {"eos_token": "</s>"}).render(CONVERSATION))
        except (BadRow, RegrowError) as error:
            assert templates.CANARY not in str(error) and "root:x:0" not in str(error)
        else:
            assert not [leak for leak in templates.LEAKS if leak in printed], printed[:300]


@pytest.mark.parametrize("text", templates.OTHER_FILES)
def test_a_template_reads_no_other_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"loader|refuses it|not valid Jinja"):
        ChatTemplate(text, {}).render(CONVERSATION)


@pytest.fixture
def short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    monkeypatch.setattr(bounded, "BYTES", 2**28)


@pytest.mark.usefixtures("short_bounds")
@pytest.mark.parametrize("text", templates.ENDLESS)
def test_a_template_without_end_is_ended(text: str) -> None:
    started = time.process_time()
    with pytest.raises(Exception, match=r"takes more than|too large|refuses it|asks for chance|not valid Jinja|cannot be compiled"):
        for _ in range(3):  # bounds hold each time
            ChatTemplate(text, {}).render(CONVERSATION)
            raise RegrowError("refuses it not")
    assert time.process_time() - started < 5


@pytest.mark.usefixtures("short_bounds")
def test_time_and_memory_are_the_run_s_end_and_not_the_row_s() -> None:
    for text, bound in (
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "CPU time"),
        ("{{ 'a'|center(10**9) }}", "memory"),
    ):
        with pytest.raises(RegrowError, match=rf"The chat template takes more than .* of {bound} for one text"):
            ChatTemplate(text, {}).render(CONVERSATION)
    assert str(ChatTemplate("{{ messages[0].content }}", {}).render(CONVERSATION)) == "q"  # and no bound is left behind
    assert len(bytearray(2**29)) == 2**29


@pytest.mark.parametrize("text", ["{{ " + "(" * 5000 + ")" * 5000 + " }}", "{% if 1 %}" * 200 + "{% endif %}" * 200, "{{ 1"])
def test_a_template_that_cannot_be_compiled_is_refused_where_it_is_fetched(text: str) -> None:
    with pytest.raises(RegrowError, match="chat_template_jinja is not a Jinja template"):
        choose_template(TokenizerSource.model_validate({"base_model": "x", "chat_template_jinja": text}), None)


@pytest.mark.parametrize("text", ["{{ [1, 2, 3]|random }}", "{{ lipsum() }}"])
def test_a_template_that_asks_for_chance_is_refused(text: str) -> None:
    with pytest.raises(RegrowError, match="asks for chance"):
        ChatTemplate(text, {}).render(CONVERSATION)


def test_a_template_cannot_change_the_conversation() -> None:
    for change in ("messages.append(1)", "messages[0].update(content='x')", "messages.clear()", "messages[0].pop('content')"):
        messages = json.loads(json.dumps(CONVERSATION))
        with pytest.raises(Exception, match="refuses it"):
            ChatTemplate(f"{{{{ {change} }}}}", {}).render(messages)
        assert messages == CONVERSATION


def test_what_every_built_in_template_needs_is_allowed() -> None:
    assert "q" in str(ChatTemplate(built_in("chatml"), {"eos_token": "</s>"}).render(CONVERSATION))


# Archives.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    link(folder, "base", make_model(tmp_path / "model"))
    link(folder, "train-00", write(tmp_path / "elsewhere" / "rows.jsonl"))
    return folder


@pytest.mark.parametrize(
    "member", ["tiny_rows/../../../escaped.jsonl", "tiny_rows//escaped.jsonl", "tiny_rows/..\\escaped.jsonl", "tiny_rows/./escaped.jsonl"]
)
def test_a_member_of_a_wheel_stays_in_its_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    serve(tmp_path / "index", monkeypatch)
    make_wheel(tmp_path / "index", {"tiny_rows/rows.jsonl": "{}\n", member: "{}\n"})
    with pytest.raises(RegrowError, match="leads out of its folder"):
        fetch(project, datasets=[{"path": "pypi:tiny-rows==1.0/tiny_rows/", "type": "completion"}])
    assert not list(tmp_path.rglob("*escaped*"))


def _zip(path: Path, raw: bytes, **facts: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("a")
        info.compress_type = zipfile.ZIP_DEFLATED
        for name, value in facts.items():
            setattr(info, name, value)
        archive.writestr(info, raw)
    return path


def test_a_link_in_a_wheel_is_a_file_with_its_text(tmp_path: Path) -> None:
    extract(_zip(tmp_path / "x.whl", b"/etc/passwd", external_attr=0o120777 << 16), {"a": "a"}, tmp_path / "out")
    assert not (tmp_path / "out" / "a").is_symlink() and (tmp_path / "out" / "a").read_bytes() == b"/etc/passwd"


def test_a_wheel_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    bomb = _zip(tmp_path / "x.whl", b"\0" * (300 * 2**20))
    with pytest.raises(RegrowError, match="unpacks to more than 300 times its size"):
        extract(bomb, {"a": "a"}, tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("place", ["flags", "method", "bytes"])
def test_a_wheel_that_cannot_be_unpacked_is_one_message(tmp_path: Path, place: str) -> None:
    path = _zip(tmp_path / "x.whl", b"abc" * 5000)
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    if place == "flags":
        raw[6] |= 1  # encrypted
        raw[central + 8] |= 1
    elif place == "method":
        raw[8] = raw[central + 10] = 97
    else:
        raw[40:60] = bytes(20)
    path.write_bytes(raw)
    with pytest.raises(RegrowError, match=r"x\.whl is damaged at a"):
        extract(path, {"a": "a"}, tmp_path / "out")


@pytest.mark.parametrize("name", ["rows.tar", "rows.tar.gz", "rows.zip"])
def test_archives_are_no_rows(project: Path, tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as archive:
        info = tarfile.TarInfo("../escaped.jsonl")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"{}\n"))
    (tmp_path / name).write_bytes(stream.getvalue())
    link(project, "train-01", tmp_path / name)
    with pytest.raises(RegrowError, match=r"datasets\[1\]\.path"):
        fetch(project, datasets=[{"path": "./rows.jsonl", "type": "completion"}, {"path": f"./{name}", "type": "completion"}])
    assert not list(tmp_path.rglob("escaped*"))


# Pickles, and code that comes with a model.


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def _keyword(call: ast.Call, name: str) -> Any:
    return next((keyword.value.value for keyword in call.keywords if keyword.arg == name and isinstance(keyword.value, ast.Constant)), None)


OWN_UNPICKLER = "stages/merge/sharded/fsdp.py"
"""Reads the table of an FSDP checkpoint with an unpickler that knows the classes of such a table and no other."""


def test_nothing_in_the_code_unpickles() -> None:
    for file, name, call in _calls():
        if file == OWN_UNPICKLER and name == "pickle.UnpicklingError":
            continue
        last = name.rpartition(".")[2]
        assert name.partition(".")[0] not in ("pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"), (file, name)
        assert last not in ("read_pickle", "load_dataset", "load_from_disk", "extractall", "unpack_archive", "full_load", "unsafe_load"), (
            file,
            name,
        )
        if name == "torch.load":
            assert _keyword(call, "weights_only") is True, file
        if name in ("np.load", "numpy.load", "np.memmap", "np.fromfile"):
            assert not _keyword(call, "allow_pickle"), file


def test_nothing_in_the_code_runs_what_comes_with_a_model() -> None:
    given = [(file, name, _keyword(call, "trust_remote_code")) for file, name, call in _calls() if name.endswith(".from_pretrained")]
    assert given and all(trusts in (None, False) for _, _, trusts in given)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.ckpt"])
def test_weights_in_a_pickle_are_refused_by_name(project: Path, tmp_path: Path, name: str) -> None:
    _without_weights(project, tmp_path)
    (tmp_path / "other" / name).write_bytes(PICKLE)
    link(project, "base", tmp_path / "other")
    with pytest.raises(RegrowError, match=rf"pickle files \({name}\), which can run any code when opened"):
        fetch(project, datasets=[{"path": "./rows.jsonl", "type": "completion"}])


def test_a_pickle_named_safetensors_is_none(project: Path, tmp_path: Path) -> None:
    _without_weights(project, tmp_path)
    (tmp_path / "other" / "model.safetensors").write_bytes(PICKLE)
    link(project, "base", tmp_path / "other")
    with pytest.raises(RegrowError, match=r"model\.safetensors is not a safetensors file"):
        fetch(project, datasets=[{"path": "./rows.jsonl", "type": "completion"}])
    assert not Path("/tmp/escaped-pickle").exists()


def test_code_that_comes_with_a_model_is_neither_copied_nor_run(project: Path, tmp_path: Path) -> None:
    _without_weights(project, tmp_path, keep=True)
    config = tmp_path / "other" / "config.json"
    mapped = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": mapped}))
    (tmp_path / "other" / "own.py").write_text("from pathlib import Path\nPath('/tmp/escaped-pickle').touch()\n")
    link(project, "base", tmp_path / "other")
    artifacts, _, _ = fetch(project, datasets=[{"path": "./rows.jsonl", "type": "completion"}])
    assert not [name for artifact in artifacts.values() for name in artifact.files if name.endswith(".py")]
    config.write_text(json.dumps({"model_type": "no_such_model", "auto_map": mapped}))
    with pytest.raises(RegrowError, match=r"config\.json cannot be opened"):
        fetch(project, datasets=[{"path": "./rows.jsonl", "type": "completion"}])
    assert not Path("/tmp/escaped-pickle").exists()


@pytest.mark.parametrize("text", ["trust_remote_code: true\n", "datasets: [{path: a, type: completion, trust_remote_code: true}]\n"])
def test_trust_in_remote_code_is_an_option_that_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(f"base_model: owner/name\nlearning_rate: 1e-4\n{'' if 'datasets' in text else _ROWS}{text}")
    with pytest.raises(RegrowError, match="trust_remote_code: true — "):
        regrow("check", str(tmp_path / "params.yaml"))


_ROWS = "datasets: [{path: a.jsonl, type: completion}]\n"


def _without_weights(project: Path, tmp_path: Path, keep: bool = False) -> None:
    """A copy of the model in ``other``; nothing is linked as the base any more."""
    (tmp_path / "other").mkdir()
    for file in (tmp_path / "model").iterdir():
        if keep or file.suffix != ".safetensors":
            (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    for link_ in (project / "data" / "sources" / "base").iterdir():
        link_.unlink()


# Secrets in what is said. Those in what is written: test_secrets.py.

SECRET = "s3cr3t-dc0ffee-never-shown"
SAID: dict[str, Callable[[], str]] = {
    "a login in an address": lambda: f"datasets: [{{path: 'https://user:{SECRET}@host.example/rows.jsonl', type: completion}}]",
    "a token in an address": lambda: f"datasets: [{{path: 'https://host.example/rows.jsonl?token={SECRET}', type: completion}}]",
    "a key of a bucket": lambda: f"datasets: [{{path: 's3://key:{SECRET}@bucket/rows.jsonl', type: completion}}]",
    "a base model's address": lambda: f"{_ROWS}base_model: https://user:{SECRET}@host.example/model",
    "a token in place of a switch": lambda: f"{_ROWS}hf_use_auth_token: {SECRET}",
    "a key of a tracker": lambda: f"{_ROWS}comet_api_key: [{SECRET}]",
    "settings of a tracker": lambda: f"{_ROWS}comet_experiment_config: {SECRET}",
    "the server of a tracker": lambda: f"{_ROWS}mlflow_tracking_uri: {{a: 'http://user:{SECRET}@host'}}",
    "an option there is not: hf_token": lambda: f"{_ROWS}hf_token: {SECRET}",
    "an option there is not: hub_token": lambda: f"{_ROWS}hub_token: {SECRET}",
    "an option there is not: wandb_api_key": lambda: f"{_ROWS}wandb_api_key: {SECRET}",
    "an option there is not: aws_secret_access_key": lambda: f"{_ROWS}aws_secret_access_key: {SECRET}",
    "an option there is not: password": lambda: f"{_ROWS}password: {SECRET}",
    "options of a storage": lambda: f"datasets: [{{path: s3://b/a.jsonl, type: completion, storage_options: {{secret: {SECRET}}}}}]",
}


@pytest.mark.parametrize("where", SAID)
def test_a_secret_in_params_is_in_no_message(tmp_path: Path, where: str) -> None:
    text = SAID[where]()
    (tmp_path / "params.yaml").write_text(f"{'' if 'base_model' in text else 'base_model: owner/name'}\nlearning_rate: 1e-4\n{text}\n")
    try:
        said = regrow("check", "--resolved", str(tmp_path / "params.yaml"))
    except RegrowError as error:
        said = str(error)
    assert said.strip() and SECRET not in said, said
