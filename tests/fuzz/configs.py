"""params.yaml: YAML that is a trap, texts with damage, values that no option has. Always through `regrow check`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from ruamel.yaml import YAML

from tests.fuzz.command import regrow
from tests.fuzz.damage import damaged, damaged_bytes, odd
from tests.fuzz.judge import Rows, Tried, judge
from tests.options.test_mutations import WHOLE

_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
_MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
GOOD = "base_model: owner/name\ndatasets:\n- {path: a.jsonl, type: completion}\nlearning_rate: 1e-4\n"

TRAPS: tuple[str | bytes, ...] = (
    _BOMB,
    _MERGE_BOMB,
    "base_model: &a [*a]\n",
    "base_model: &a {x: *a}\n",
    "<<: &a {<<: *a}\n",
    "<<: *nothing\n",
    "<<: 7\n",
    "&a *a: 1\n",
    GOOD + "lora_r: !!python/object/apply:os.system ['touch /tmp/escaped']\n",
    GOOD + "lora_r: !!python/name:os.system\n",
    GOOD + "lora_r: !!python/object/new:subprocess.Popen [['touch', '/tmp/escaped']]\n",
    GOOD + "lora_r: !!binary aGVsbG8=\n",
    GOOD + "lora_r: !!binary '*not base64*'\n",
    GOOD + "lora_r: !!set {a, b}\n",
    GOOD + "lora_r: !!omap [a: 1]\n",
    GOOD + "lora_r: !!int text\n",
    GOOD + "lora_r: !!float []\n",
    GOOD + "lora_r: !!bool maybe\n",
    GOOD + "lora_r: !!null 7\n",
    GOOD + "lora_r: !!timestamp never\n",
    GOOD + "lora_r: !!str 8\n",
    GOOD + "lora_r: !own 8\n",
    GOOD + "lora_r: ! 8\n",
    "%YAML 1.1\n---\n" + GOOD,
    "%YAML 9.9\n---\n" + GOOD,
    "%TAG ! tag:x,2000:\n---\n" + GOOD,
    GOOD + GOOD,
    GOOD + "---\n" + GOOD,
    GOOD + "...\n" + GOOD,
    GOOD + "seed: 1\nseed: 2\n",
    GOOD + "? [a, b]\n: 1\n",
    GOOD + "? {a: b}\n: 1\n",
    GOOD + "null: 1\n",
    GOOD + "true: 1\n",
    GOOD + "1: 1\n",
    GOOD + "1.5: 1\n",
    GOOD + "'': 1\n",
    GOOD + "2020-01-01: 1\n",
    GOOD + "? |\n  long\n: 1\n",
    GOOD + "seed: 2020-01-01\n",
    GOOD + "seed: 2020-13-45\n",
    GOOD + "seed: 0o17\n",
    GOOD + "seed: 017\n",
    GOOD + "seed: 0x1F\n",
    GOOD + "seed: 0b11\n",
    GOOD + "seed: 1_000\n",
    GOOD + "seed: 1:30\n",
    GOOD + "seed: " + "9" * 5000 + "\n",
    GOOD + "seed: 0x" + "f" * 5000 + "\n",
    GOOD + "seed: 1e999\n",
    GOOD + "seed: .nan\n",
    GOOD + "learning_rate: -.inf\n",
    GOOD + "learning_rate: 1e-400\n",
    GOOD + "lora_r:\t8\n",
    GOOD + "\tlora_r: 8\n",
    GOOD + "datasets:\n\t- path: a\n",
    GOOD + 'chat_template_jinja: "\\ud800"\n',
    GOOD + 'chat_template_jinja: "\\x00"\n',
    GOOD + 'output_dir: "a\\0b"\n',
    GOOD + "seed: '\u2028'\n",
    GOOD + "sęed: 1\n",
    "\ufeff" + GOOD,
    GOOD.replace("\n", "\r\n"),
    GOOD.replace("\n", "\r"),
    GOOD.encode("utf-16"),
    GOOD.encode("utf-32"),
    b"\xff\xfe\xfd",
    b"\x00" * 100,
    b"\x80abc: 1\n",
    b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    b"PK\x03\x04" + bytes(50),
    "",
    "\n\n",
    "# nothing\n",
    "---\n",
    "null\n",
    "[]\n",
    "- a\n",
    "7\n",
    "text\n",
    "{}\n",
    "[" * 5000,
    "{a: " * 5000,
    "[" * 300 + "]" * 300,
    "a:\n" + "".join(f"{' ' * n}b{n}:\n" for n in range(1, 400)),
    "- " * 3000 + "x\n",
    "datasets: " + "[" * 200 + "]" * 200 + "\n",
    GOOD + "".join(f"no_such_key_{n}: 1\n" for n in range(3000)),
    GOOD + "adapter: " + "x" * 2_000_000 + "\n",
    GOOD + "adapter: |\n" + "  long line\n" * 50_000,
    "datasets:\n" + "- {path: a.jsonl, type: completion}\n" * 3000,
    GOOD + "lora_target_modules: [" + ", ".join(["q_proj"] * 20_000) + "]\n",
    GOOD + "a" * 5000 + ": 1\n",
    GOOD + "chat_template_jinja: '{{ 10**10**9 }}'\n",
    GOOD + "lora_target_modules: '(a+)+$'\n",
    GOOD + "${HOME}: $(touch /tmp/escaped)\n",
    "base_model: ${oc.env:HOME}\n",
    "base_model: {{ env.HOME }}\n",
)


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """All that are listed here once, then damaged ones, ``count`` in all."""
    folder = folder / "configs"
    folder.mkdir()
    texts: list[tuple[str, bytes]] = [
        ("traps", text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")) for text in TRAPS
    ]
    texts = rng.sample(texts, min(count, len(texts)))
    for _ in range(count - len(texts)):
        texts.append(rng.choice([_values, _values, _bytes, _keys])(rng))
    for number, (kind, raw) in enumerate(texts):
        path = folder / f"{number}.yaml"
        path.write_bytes(raw)
        yield judge(f"configs: {kind}", repr(raw[:200]), lambda p=path: check(p))  # type: ignore[misc]
        path.unlink()
    assert not Path("/tmp/escaped").exists()


def _values(rng: Random) -> tuple[str, bytes]:
    return "values", _dump(damaged(WHOLE, rng, rng.randint(1, 4)))


def _keys(rng: Random) -> tuple[str, bytes]:
    """Any option at all with a value that hardly anything expects."""
    from pipeline.options.views import RecipeOptions

    names = rng.sample(sorted(RecipeOptions.model_fields), rng.randint(1, 5))
    return "any option", _dump(WHOLE | {name: odd(rng) for name in names})


def _bytes(rng: Random) -> tuple[str, bytes]:
    return "damaged bytes", damaged_bytes(_dump(WHOLE), rng)


def _dump(values: Any) -> bytes:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    try:
        yaml.dump(values, stream)
    except (RecursionError, ValueError):
        return json.dumps(values).encode()  # nearly all JSON is YAML
    return stream.getvalue().encode("utf-8", "surrogatepass")


def check(path: Path) -> Rows:
    """`regrow check --resolved FILE`."""
    assert "no problems" in regrow("check", "--resolved", str(path))
    return Rows()
