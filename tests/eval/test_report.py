"""report.html: one file, no requests, everything from data escaped, pictures with their numbers in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.artifact import open_artifact
from stages.eval import STAGE
from tests.eval.workspace import LOG, Row, chat_row, make_workspace, questions, replace, reseal
from tests.tiny import publish_artifact, run_stage

SCRIPT = "<script>alert('&amp;')</script>"


class Page(HTMLParser):
    """Start tags, ids, unclosed tags, and the text of the page."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


@pytest.fixture(scope="module")
def html(evaluated: Path) -> str:
    return (evaluated / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_it_asks_nothing_of_a_network(html: str, page: Page) -> None:
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    loads = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "data")
    ]
    assert all(value is not None and value.startswith("#") for value in loads)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_it_is_well_formed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_it_opens_with_the_verdict(page: Page, evaluated: Path) -> None:
    verdict = open_artifact(evaluated).content["verdict"]
    assert verdict.startswith("Fine-tuning made no measurable difference: accuracy from ")
    assert page.text.index(verdict) < page.text.index("Held-out accuracy")


def test_pictures_are_there_and_say_their_numbers(html: str, page: Page, metrics: Any) -> None:
    pictures = list(page.named("svg"))
    assert len(pictures) == 7
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert f"merged {metrics['merged']['accuracy']:.3f} (" in str(pictures[0]["aria-label"])
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    assert "#010203" not in html


def test_dots_stand_where_the_numbers_are(html: str, metrics: Any) -> None:
    """The accuracy chart's dots are on a line with the axis labels 0.0 and 1.0."""
    svg = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", html, re.DOTALL)[0])
    labels = {text.text: text for text in svg.iter("text")}
    left, right = (label_x(labels[label]) for label in ("0.0", "1.0"))
    dots = [
        float(use.attrib["x"]) for group in svg.iter("g") if group.get("id", "").startswith("share-line2d") for use in group.iter("use")
    ]
    for name in ("base", "merged", "int8", "q8_0"):
        expected = left + metrics[name]["accuracy"] * (right - left)
        assert min(abs(dot - expected) for dot in dots) < 0.5


def label_x(text: ElementTree.Element) -> float:
    found = re.search(r"translate\(([\d.]+)", text.get("transform", ""))
    return float(found[1]) if found else float(text.attrib["x"])


def test_wrong_answers_are_marked_in_words(page: Page) -> None:
    assert page.text.count("✓ same") + page.text.count("✗ differs") == 3 * 4 + 2  # and once each in the explanation
    assert page.text.count("✓ same") > 3


def test_special_tokens_of_the_prompt_are_visible(page: Page) -> None:
    assert "<|im_start|>user\nis 0 odd<|im_end|>\n<|im_start|>assistant\n" in page.text


def test_lineage_gives_whole_digests(page: Page, workspace: Path) -> None:
    for name in STAGE.reads:
        assert open_artifact(workspace / "data" / name).digest in page.text


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    def rows(tokenizer: Any) -> list[Row]:
        return [*questions(tokenizer, 3), chat_row(tokenizer, SCRIPT, SCRIPT), chat_row(tokenizer, "x", "y")]

    workspace = make_workspace(tmp_path, rows, held_out=4)
    source = {"name": "train-00", "split": "train", "path": SCRIPT, "file": SCRIPT, "rows": 5, "rejected": {SCRIPT: 2}}
    reseal(workspace / "data", "tokens", sources=[source])
    reseal(workspace / "data", "dedupe", removed={SCRIPT: 1})
    run_stage(STAGE, workspace, {"eval": {"max_new_tokens": 2}})
    html = (workspace / "data" / "eval" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    page = Page(html)
    assert page.open == []
    assert f"{SCRIPT}<|im_end|>" in page.text
    assert f"2 {SCRIPT}" in page.text


def test_manifests_of_the_data_stages_are_shown(nothing_held_out: Path) -> None:
    data = nothing_held_out / "data"
    counts = {"rows": 1234, "tokens": 56789, "trained_tokens": 77, "longest": 40, "rejected": {"empty answer": 3, "not JSON": 1}}
    reseal(data, "tokens", sources=[{"name": "train-00", "split": "train", "path": "./my.jsonl", "file": "my.jsonl", **counts}])
    reseal(data, "dedupe", removed={"exact duplicate": 21, "near duplicate": 0})
    split = {"bins": 9, "rows": 31, "tokens": 4000, "trained_tokens": 70, "efficiency": 0.9312, "lower_bound_bins": 8, "longest": 39}
    reseal(data, "packed", train=split, eval=split | {"rows": 29}, dropped={"too long": 6}, truncated={"rows": 2, "tokens": 1500})
    run_stage(STAGE, nothing_held_out)
    page = Page((data / "eval" / "report.html").read_text(encoding="utf-8"))
    for words in (
        "./my.jsonl",
        "1,234",
        "56,789",
        "3 empty answer, 1 not JSON",
        "exact duplicate",
        "dropped: too long",
        "losing 1,500 tokens",
        "0.9312",
    ):
        assert words in page.text
    assert "near duplicate" not in page.text


def test_an_input_that_was_made_from_something_else_is_pointed_out(nothing_held_out: Path) -> None:
    data = nothing_held_out / "data"
    manifest = data / "merged" / "manifest.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"inputs": {}', '"inputs": {"base": "' + "ab" * 32 + '"}'), encoding="utf-8"
    )
    run_stage(STAGE, nothing_held_out)
    assert "✗ not the data/base above" in Page((data / "eval" / "report.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (LOG, "centred mean of"),
        ("step,epoch,loss,learning_rate\n1,1.0,2.5,0.1\n", "1 point, not smoothed"),
        (LOG.splitlines()[0] + "\n", "log is empty"),
    ],
)
def test_logs_of_any_length(log: str, words: str, nothing_held_out: Path) -> None:
    data = nothing_held_out / "data"
    replace(data, "trained", lambda: publish_artifact(data, "trained", lambda folder: (folder / "log.csv").write_text(log)))
    run_stage(STAGE, nothing_held_out)
    assert words in Page((data / "eval" / "report.html").read_text(encoding="utf-8")).text
