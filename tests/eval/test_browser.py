"""The report in a browser, on a screen and on a phone, in both colour schemes: what it asks for, and what is to be seen."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]

QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps")
PAPER = {"light": (255, 255, 255), "dark": (20, 24, 28)}
BLUE = (47, 127, 193)


@pytest.fixture
def asked() -> Iterator[tuple[int, list[str]]]:
    """A proxy that refuses everything: its port, and what was asked of it."""
    seen: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(403)

        do_CONNECT = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], seen
    server.shutdown()


def shoot(report: Path, folder: Path, width: int, scheme: str, proxy: int) -> np.ndarray:
    """Pixels ``[height, width, 3]`` of the whole page, in a window of 8000 lines."""
    target = folder / f"{width}-{scheme}.png"
    arguments = [
        *("--headless", "--no-sandbox", "--disable-gpu", *QUIET, f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"),
        *(f"--proxy-server=http://127.0.0.1:{proxy}", "--proxy-bypass-list=<-loopback>"),
        *(f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", f"--window-size={width},8000", f"--screenshot={target}"),
    ]
    subprocess.run([str(BROWSER), *arguments, report.as_uri()], check=True, capture_output=True, timeout=120)
    return np.asarray(Image.open(target).convert("RGB"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_it_is_whole_without_a_network(width: int, scheme: str, evaluated: Path, tmp_path: Path, asked: tuple[int, list[str]]) -> None:
    proxy, seen = asked
    pixels = shoot(evaluated / "report.html", tmp_path, width, scheme, proxy)
    assert [path for path in seen if "google" not in path] == []  # the browser's own services; the page's policy lets it load nothing
    assert pixels.shape == (8000, width, 3)
    paper = (pixels == PAPER[scheme]).all(axis=2)
    assert paper[:, :12].all() and paper[:, -12:].all(), "nothing reaches the edges: no part of the page is wider than the screen"
    last = np.flatnonzero(~paper.all(axis=1))[-1]
    assert 2000 < last < 7900
    blue = np.abs(pixels.astype(int) - BLUE).sum(axis=2) < 12
    rows = np.flatnonzero(blue.any(axis=1))
    pictures = 1 + int((np.diff(rows) > 60).sum())
    assert pictures >= 4, "pictures stand apart, each with something blue"
