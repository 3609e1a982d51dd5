"""`regrow chat`: which model it opens, what it answers, how a conversation goes on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pipeline.chat import page
from pipeline.chat.conversation import Conversation, Sampling
from pipeline.chat.opened import open_chat_model
from pipeline.chat.terminal import talk
from pipeline.cli import app
from pipeline.errors import MissingExtra, RegrowError
from pipeline.models import load_causal_lm
from tests.eval.quantized import write_q8_0
from tests.options.configs import GOOD
from tests.tiny import publish_artifact, save_model, save_tokenizer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base, an adapter, the merged and a GGUF model, all different; read only."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("chat")
    data = root / "data"
    (root / "dvc.yaml").write_text("")
    (root / "params.yaml").write_text(GOOD + "gradio_title: My own\ngradio_server_port: 7999\ngradio_max_new_tokens: 5\n")
    publish_artifact(data, "tokenizer", save_tokenizer)
    publish_artifact(data, "base", lambda folder: save_model(folder, seed=0))
    publish_artifact(data, "merged", lambda folder: save_model(folder, seed=1))

    def train(folder: Path) -> None:
        torch.manual_seed(5)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(data / "base"), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
        model.save_pretrained(str(folder))

    def quantize(folder: Path) -> None:
        (folder / "q8_0").mkdir()
        write_q8_0(folder / "q8_0/model.gguf", data / "merged")

    publish_artifact(data, "trained", train, kind="lora")
    publish_artifact(data, "quantized", quantize)
    return root


@pytest.fixture
def conversation(project: Path) -> Conversation:
    return Conversation(*open_chat_model(project / "data", None, adapter=False, gguf=False), Sampling(12))


def expected(folder: Path, tokenizer: Path, messages: list[dict[str, str]], limit: int) -> str:
    """What generate() says, from the template's text."""
    opened, model = AutoTokenizer.from_pretrained(tokenizer), load_causal_lm(folder)
    ids = torch.tensor([opened.encode(opened.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))])
    out = model.generate(ids, do_sample=False, max_new_tokens=limit, pad_token_id=0)[0, ids.shape[1] :]
    return str(opened.decode(out, skip_special_tokens=True))


def test_pieces_are_what_generate_says_and_whole_characters(project: Path, conversation: Conversation) -> None:
    messages = [{"role": "user", "content": "hello"}]
    pieces = list(conversation.reply(messages))
    whole = expected(project / "data/merged", project / "data/tokenizer", messages, 12)
    assert whole.startswith("".join(pieces)) and len(pieces) > 1
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)[-1:]


def test_a_temperature_draws_by_the_seed(project: Path) -> None:
    opened = open_chat_model(project / "data", None, adapter=False, gguf=False)

    def said(temperature: float, seed: int) -> str:
        return "".join(Conversation(*opened, Sampling(12, temperature, seed)).reply([{"role": "user", "content": "x"}]))

    assert said(2.0, 1) == said(2.0, 1) != said(2.0, 2)
    assert said(0, 1) == said(0, 2)


def test_each_flag_opens_its_model(project: Path) -> None:
    data, ids = project / "data", torch.tensor([[5, 60, 70]])

    def logits(**asked: Any) -> torch.Tensor:
        model, _ = open_chat_model(data, **({"model": None, "adapter": False, "gguf": False} | asked))
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=ids).logits
        return found

    merged, base, adapted, gguf = logits(), logits(model=data / "base"), logits(adapter=True), logits(gguf=True)
    assert not torch.allclose(base, adapted) and not torch.allclose(base, merged)
    assert torch.allclose(merged, gguf, atol=0.05) and not torch.equal(merged, gguf)
    assert torch.equal(gguf, logits(model=data / "quantized/q8_0/model.gguf"))


def test_a_model_with_a_tokenizer_of_its_own_keeps_it(project: Path, tmp_path: Path) -> None:
    save_model(tmp_path)
    save_tokenizer(tmp_path, chat_template="{{ messages[0]['content'] }}")
    _, tokenizer = open_chat_model(project / "data", tmp_path, adapter=False, gguf=False)
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"adapter": True, "gguf": True}, "each name a model"),
        ({"model": Path("nowhere")}, "nowhere is not there"),
        ({"model": Path("data/dedupe")}, "is not there"),
    ],
)
def test_what_cannot_be_opened_is_named(asked: dict[str, Any], words: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(RegrowError, match=words):
        open_chat_model(project / "data", **({"model": None, "adapter": False, "gguf": False} | asked))


def test_all_weights_are_no_adapter(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "data/base", tmp_path / "base")
    publish_artifact(tmp_path, "trained", save_model, kind="full")
    with pytest.raises(RegrowError, match="holds all weights and no adapter"):
        open_chat_model(tmp_path, None, adapter=True, gguf=False)


class Echo:
    """In place of a Conversation: says how it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []

    def reply(self, messages: Any) -> Iterator[str]:
        self.asked.append(list(messages))
        yield from ["a", "b"]
        if messages[-1]["content"] == "stop":
            raise KeyboardInterrupt
        if messages[-1]["content"] == "long":
            raise RegrowError("too long")


def test_the_terminal_keeps_the_conversation_until_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    lines, echo, written = iter(["one", " ", "two", "/new", "stop", "long", "three", "/exit", "never"]), Echo(), list[str]()
    talk(echo, "Be brief.", lambda: next(lines), written.append)  # type: ignore[arg-type]
    system, said = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "ab"}

    def user(text: str) -> dict[str, str]:
        return {"role": "user", "content": text}

    assert echo.asked == [
        [system, user("one")],
        [system, user("one"), said, user("two")],
        [system, user("stop")],
        [system, user("stop"), said, user("long")],
        [system, user("stop"), said, user("three")],
    ]
    assert "".join(written).count("ab") == 5 and " …" in written
    assert any("too long" in piece for piece in written)


def test_the_command(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["chat", "--max-new-tokens", "6"], input="hello\n/exit\n")
    assert result.exit_code == 0, result.output
    said = "".join(
        Conversation(*open_chat_model(project / "data", None, adapter=False, gguf=False), Sampling(6)).reply(
            [{"role": "user", "content": "hello"}]
        )
    )
    assert said in result.output


def test_the_page_has_the_options_and_answers_as_the_terminal_does(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class ChatInterface:
        def __init__(self, respond: Any, title: str) -> None:
            seen.update(respond=respond, title=title)

        def launch(self, **given: Any) -> None:
            seen.update(given)
            part = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
            seen["said"] = list(seen["respond"]("more", [part, {"role": "assistant", "content": "hi"}]))

    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(ChatInterface=ChatInterface))
    monkeypatch.setattr(page, "find_spec", lambda name: True)
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["chat", "--gradio"])
    assert result.exit_code == 0, result.output
    assert {name: seen[name] for name in ("title", "share", "server_name", "server_port")} == {
        "title": "My own",
        "share": False,
        "server_name": "127.0.0.1",
        "server_port": 7999,
    }
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"}]
    opened = open_chat_model(project / "data", None, adapter=False, gguf=False)
    assert seen["said"][-1] == "".join(Conversation(*opened, Sampling(5)).reply(messages))


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"regrow\[gradio\]"):
        page.require_gradio()
