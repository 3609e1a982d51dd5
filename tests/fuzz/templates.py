"""Chat templates: hostile ones, endless ones, such as are no Jinja, and built-in ones with damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from pipeline import bounded
from pipeline.chat_templates import NAMES, built_in
from pipeline.tokens import TokenTable
from stages.tokenize import STAGE
from tests.fuzz.damage import as_json, damaged_bytes
from tests.fuzz.judge import Rows, Tried, judge
from tests.tiny import CHATML, publish_artifact, run_stage, save_tokenizer
from tests.tokenize.rows import chat, full_text, publish_raw

CANARY = "canary-5f1d-do-not-print"
"""Stands in the environment, where a template that has left its sandbox would find it."""

LEAKS = (CANARY, "<class '", "<module '", "root:x:0", "__globals__", "<frame ")

ESCAPES = (
    "''.__class__.__mro__[1].__subclasses__()",
    "messages.__class__.__base__.__subclasses__()",
    "messages[0].content.__class__.__init__.__globals__",
    "messages[0].content.spans.__class__",
    "cycler.__init__.__globals__.os.environ",
    "joiner.__init__.__globals__['os'].popen('id').read()",
    "namespace.__init__.__globals__",
    "lipsum.__globals__['os'].environ",
    "raise_exception.__globals__",
    "raise_exception.__code__.co_consts",
    "strftime_now.__globals__",
    "self.__class__",
    "self._TemplateReference__context.environment",
    "self._TemplateReference__context.parent",
    "range.__class__.__mro__",
    "().__class__",
    "(1).__class__.__base__",
    "messages|attr('__class__')",
    "messages|map(attribute='__class__')|list",
    "messages|map('attr', '__class__')|list",
    "[messages]|map(attribute='__class__.__mro__')|list",
    "[1]|groupby('__class__')|list",
    "messages|sort(attribute='__class__')",
    "[messages]|sum(attribute='__len__')",
    "messages|selectattr('__class__')|list",
    "['x']|join(attribute='__class__')",
    "'{0.__class__}'.format(1)",
    "'{0.__class__.__mro__}'.format(messages)",
    "'{a.__init__.__globals__}'.format(a=cycler)",
    "'{0.__class__}'|format(1)",
    "'{x.__class__}'.format_map({'x': 1})",
    "('{0.__cl' ~ 'ass__}').format(1)",
    "messages[0].content.format(1)",
    "('{0.__class__}'|attr('format'))(1)",
    "['{0.__class__}'.format]|map('string')|list",
    "[undefined_name]|tojson(default='{0.__class__}'.format)",
    "messages|tojson(cls=namespace)",
    "messages|tojson(cls=dict)",
    "dict.__class__",
    "dict|attr('fromkeys')",
    "dict.mro()",
    "''.__class__.mro()",
    "messages.append(1)",
    "messages.clear()",
    "messages[0].update(role='assistant')",
    "messages[0].pop('content')",
    "messages.__setitem__(0, 1)",
    "loop.__class__",
    "caller.__class__",
    "varargs.__class__",
    "namespace(a=1).__class__",
    "namespace(a=1)._Namespace__attrs",
    "(messages|batch(1)).gi_frame.f_globals",
    "(messages|map('upper')).gi_frame.f_back.f_globals",
    "(messages|select).gi_code",
    "(range(3)|slice(1)).gi_frame.f_builtins['open']('/etc/passwd').read()",
    "range(3).__reduce__()",
    "messages.copy().__class__",
    "'%(a)s' % {'a': ''.__class__}",
    "'%s'|format(messages.append)",
    "g",
    "config",
    "request.application.__globals__",
    "get_flashed_messages.__globals__",
    "''['__class__']",
    "messages['__class__']",
    "''['__cl' 'ass__']",
    "''[['__', 'class', '__']|join]",
    "().__class__.__bases__[0].__subclasses__()",
    "_environment",
    "environment",
    "context",
    "resolve('messages')",
    "undefined.__class__",
    "(undefined|default('')).__class__",
    "messages[0].content.whole.__func__.__globals__",
    "messages[0].content._cut(0, 1)",
    "messages[0].content.__reduce_ex__(2)",
    "messages[0].content.encode().__class__",
)
"""Expressions that read what no template may."""

OTHER_FILES = (
    "{% include '/etc/passwd' %}",
    "{% include messages[0].content %}",
    "{% import '/etc/passwd' as x %}",
    "{% from 'os' import environ %}",
    "{% extends '../../../../etc/passwd' %}",
    "{% include ['a', 'b'] ignore missing %}",
)

ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}x{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 10**12 }}",
    "{{ [0] * 10**9 }}",
    "{{ messages * 10**9 }}",
    "{{ 10**10**9 }}",
    "{{ 10**10**6 }}",
    "{{ 2**(2**40) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', 'aa') %}{% endfor %}",
    "{% set ns = namespace(x=messages[0].content) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ 'a'|center(10**12) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ '\t'.expandtabs(10**9) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ 'a\nb'|indent(10**9) }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ [1]|batch(10**10, 0)|list }}",
    "{{ range(3)|slice(10**10)|list }}",
    "{{ 1.5|round(10**9) }}",
    "{{ ['a' * 10**5]|join|replace('a', 'a' * 10**5) }}",
    "{{ [1]|batch(99999, range(99999))|first|map('sum')|sum }}",
    "{{ range(99999)|map('string')|join('x' * 10**5) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ lipsum(n=10**6) }}",
    "{{ 'a'|wordwrap(1, wrapstring='b' * 10**7) }}",
    "{{ ('a ' * 10**7)|wordwrap(1, wrapstring='b' * 10**4) }}",
    "{{ ('(' * 10**6)|urlize }}",
    "{{ ('<' * 10**6)|striptags }}",
)
"""Templates that would take all the time or memory there is."""

STRANGE = (
    " ",
    "{{",
    "{% if %}",
    "{% endfor %}",
    "{% for m in messages %}",
    "{{ messages|nofilter }}",
    "{{ messages is notest }}",
    "{{ nofunction() }}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "[" * 300 + "]" * 300 + " }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ 1 " + "+ 1 " * 5000 + "}}",
    "{{ " + "9" * 5000 + " }}",
    "{{ 1e999 }}",
    "{{ 0x }}",
    "{{ '\\ud800' }}",
    "{{ '\\x' }}",
    "{% for a in messages %}" * 30 + "{% endfor %}" * 30,
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "{% macro f(" + ", ".join(f"a{i}" for i in range(300)) + ") %}{% endmacro %}",
    "{% set messages = 1 %}" + CHATML,
    "{% set loop = 1 %}{% for m in messages %}{{ loop }}{% endfor %}",
    "{% break %}",
    "{% continue %}",
    "{% generation %}x",
    "{% endgeneration %}",
    "{% raw %}",
    "{# never closed",
    "{{ messages.0.content }}",
    "{{ messages }}",
    "{{ messages[99].content }}",
    "{{ messages[0].nothing.more }}",
    "{{ raise_exception('no') }}",
    "{{ raise_exception() }}",
    "{{ raise_exception(messages) }}",
    "{{ strftime_now('%d') }}",
    "{{ [1, 2]|random }}",
    "{{ 1 / 0 }}",
    "{{ -1 ** 0.5 }}",
    "{{ 'x'.index('y') }}",
    "{{ messages[0].content.encode('no-such-code') }}",
    "{{ 'a'.encode('utf-16').decode('utf-8') }}",
    "{{ messages|sort }}",
    "{{ messages|sum }}",
    "{{ messages|int }}",
    "{{ '9' * 5000|int }}",
    "{{ ('9' * 5000)|int }}",
    "{{ ('9' * 5000)|float|int }}",
    "{{ 'nan'|float|int }}",
    "{{ '\x00' }}\x00",
    "{% set x %}{{ x }}{% endset %}{{ x }}",
    "{% autoescape true %}{{ messages[0].content }}{% endautoescape %}",
    "{{ messages[0].content|e }}{{ messages[0].content|safe }}",
    "{% filter upper %}" + CHATML + "{% endfilter %}",
    "{% call foo() %}{% endcall %}",
    "{% trans %}a{% endtrans %}",
    "{% do messages %}",
    "{% debug %}",
    "{{ debug() }}",
)

_ATOMS = (
    *("messages", "messages[0]", "messages[0].content", "messages[-1].role", "tools", "loop", "namespace(a=1)", "cycler(1, 2)", "joiner()"),
    *(
        "dict(a=1)",
        "range(3)",
        "self",
        "raise_exception",
        "strftime_now",
        "eos_token",
        "'text'",
        "7",
        "1.5",
        "none",
        "true",
        "nothing",
        "[]",
    ),
    *("{}", "(1, 2)", "{'a': [1]}", "caller", "varargs", "lipsum", "'{}{0}'", "'%s'", "''"),
)
_NAMES = (
    *(
        "__class__",
        "__init__",
        "__globals__",
        "__mro__",
        "__dict__",
        "__subclasses__",
        "__getitem__",
        "__reduce__",
        "_cut",
        "spans",
        "whole",
    ),
    *("content", "role", "format", "format_map", "upper", "split", "items", "keys", "get", "pop", "append", "join", "encode", "translate"),
    *(
        "index",
        "first",
        "nextitem",
        "gi_frame",
        "f_globals",
        "mro",
        "environ",
        "next",
        "reset",
        "real",
        "numerator",
        "hex",
        "as_integer_ratio",
    ),
)
_FILTERS = (
    *(
        "abs",
        "attr('__class__')",
        "batch(2)",
        "capitalize",
        "center(9)",
        "count",
        "d",
        "default(1)",
        "dictsort",
        "e",
        "escape",
        "filesizeformat",
    ),
    *(
        "first",
        "float",
        "forceescape",
        "format(1)",
        "groupby('role')",
        "indent(2)",
        "int",
        "items",
        "join",
        "join(messages)",
        "last",
        "length",
    ),
    *("list", "lower", "map(attribute='role')", "map('upper')", "map('attr', '__class__')", "max", "min", "pprint", "random", "reject"),
    *("rejectattr('role')", "replace('a', 'b')", "reverse", "round", "safe", "select('string')", "selectattr('role', 'equalto', 'user')"),
    *(
        "slice(2)",
        "sort",
        "sort(attribute='role')",
        "string",
        "striptags",
        "sum",
        "title",
        "tojson",
        "tojson(indent=2)",
        "trim",
        "truncate(3)",
    ),
    *("unique", "upper", "urlencode", "urlize", "wordcount", "wordwrap(3)", "xmlattr", "nofilter"),
)
_TESTS = (
    "defined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sameas(1)",
    "in(messages)",
    "callable",
    "divisibleby(0)",
    "odd",
    "notest",
    "filter",
)


def inputs(rng: Random, folder: Path, count: int) -> Iterator[Tried]:
    """All that are listed here once, then damaged and random ones, ``count`` in all."""
    os.environ["REGROW_CANARY"] = CANARY
    before = bounded.SECONDS, bounded.BYTES
    bounded.SECONDS, bounded.BYTES = 1.0, 2**30
    try:
        for number, (kind, text) in enumerate(_texts(rng, count)):
            workspace = folder / f"templates-{number}"
            yield judge(f"chat templates: {kind}", text[:200], lambda w=workspace, t=text: render(w, t))  # type: ignore[misc]
    finally:
        bounded.SECONDS, bounded.BYTES = before
        del os.environ["REGROW_CANARY"]


def _texts(rng: Random, count: int) -> list[tuple[str, str]]:
    listed = [("hostile", f"{{{{ {text} }}}}{CHATML}") for text in ESCAPES] + [("hostile", text) for text in OTHER_FILES]
    listed += [("endless", text) for text in ENDLESS] + [("strange", text) for text in STRANGE]
    if count < len(listed):
        return rng.sample(listed, count)
    return listed + [
        ("random", random_template(rng)) if rng.random() < 0.6 else ("damaged", _damaged(rng)) for _ in range(count - len(listed))
    ]


def _damaged(rng: Random) -> str:
    text = rng.choice([CHATML, built_in(rng.choice([name for name in NAMES if name != "jinja"]))])
    return damaged_bytes(text.encode(), rng).decode("utf-8", "replace") or " "


def random_template(rng: Random) -> str:
    """A few statements with expressions that anything may stand in."""
    return "".join(_statement(rng, 3) for _ in range(rng.randint(1, 4))) + rng.choice(["", CHATML])


def _statement(rng: Random, depth: int) -> str:
    inner = _statement(rng, depth - 1) if depth else "x"
    value = _expression(rng, rng.randint(0, 3))
    return rng.choice(
        [
            f"{{{{ {value} }}}}",
            f"{{{{ {value} }}}}",
            f"{{% if {value} %}}{inner}{{% else %}}{{% endif %}}",
            f"{{% for i in {value} %}}{inner}{{{{ i }}}}{{% endfor %}}",
            f"{{% for i, j in {value} %}}{{% break %}}{inner}{{% endfor %}}",
            f"{{% set x = {value} %}}{{{{ x }}}}",
            f"{{% set ns = namespace() %}}{{% set ns.x = {value} %}}{{{{ ns.x }}}}",
            f"{{% macro f(a=1) %}}{inner}{{{{ a }}}}{{% endmacro %}}{{{{ f({value}) }}}}",
            f"{{% filter {rng.choice(_FILTERS)} %}}{inner}{{% endfilter %}}",
            f"{{% with y = {value} %}}{inner}{{{{ y }}}}{{% endwith %}}",
            f"{{% generation %}}{inner}{{% endgeneration %}}",
            f"{{% include {value} %}}",
            f"{{% call(z) f() %}}{inner}{{% endcall %}}",
        ]
    )


def _expression(rng: Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(_ATOMS)
    one, two = _expression(rng, depth - 1), _expression(rng, depth - 1)
    return rng.choice(
        [
            f"{one}.{rng.choice(_NAMES)}",
            f"{one}.{rng.choice(_NAMES)}({rng.choice(['', two, f'a={two}', f'*{two}', f'**{two}'])})",
            f"{one}[{two}]",
            f"{one}['{rng.choice(_NAMES)}']",
            f"{one}[:{two}]",
            f"({one})|{rng.choice(_FILTERS)}",
            f"({one})|{rng.choice(_FILTERS)}|{rng.choice(_FILTERS)}",
            f"({one} {rng.choice(['+', '-', '~', '*', '/', '//', '%', '==', '<', 'in', 'and'])} {two})",
            f"({one} is {rng.choice(_TESTS)})",
            f"({one} if {two} else 1)",
            f"{one}({two})",
        ]
    )


ROWS = [chat(("user", "q {{ messages }} {0.__class__}"), ("assistant", "a")), chat(("system", "s"), ("user", "q"), ("assistant", "a"))]


def render(workspace: Path, template: str) -> Rows:
    """Tokenize two rows with a chat template; nothing of the machine may be in the text."""
    publish_raw(workspace / "data", "rows.jsonl", "".join(as_json(row) + "\n" for row in ROWS).encode())
    publish_artifact(workspace / "data", "tokenizer", save_tokenizer)
    entry: dict[str, Any] = {"path": "rows.jsonl", "type": "chat_template", "chat_template_jinja": template, "train_on_eos": "all"}
    artifacts, metrics = run_stage(STAGE, workspace, {"datasets": [entry], "train_on_inputs": True}, cache=workspace.parent / "cache")
    table = TokenTable(artifacts["tokens"].path)
    text = "".join(full_text(table, row) for row in range(len(table)))
    leaked = [leak for leak in LEAKS if leak in text and leak not in template]
    assert not leaked, f"{leaked} in {text[:500]}"
    return Rows(len(table), metrics["rejected"])
