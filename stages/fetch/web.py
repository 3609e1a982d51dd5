"""Files behind https addresses. Plain http is for this machine's own servers only."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import quote

from pipeline.errors import RegrowError
from pipeline.source import Web, is_loopback, without_secrets
from stages.fetch.transfer import Answer, Ask, Interruption

_TIMEOUT = 30.0
_CHUNK = 2**18
_AS_WRITTEN = "%/:=&?~#+!$,;'@()*[]"
"""Characters of an address that are not escaped: people paste names with spaces and accents."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCKED = frozenset({401, 403, 407})


def ask_web(source: Web, option: str) -> Ask:
    """What asks for the file of ``source``."""
    what = f"{option}: {source.url}"
    handlers = [_SafeRedirects(what), *([urllib.request.ProxyHandler({})] if is_loopback(source.url) else [])]
    opener = urllib.request.build_opener(*handlers)

    @contextmanager
    def ask(offset: int, version: str | None) -> Iterator[Answer]:
        part = {"Range": f"bytes={offset}-", "If-Range": version} if offset and version else {}
        with _explained(what), _open(opener, source.url, part) as response:
            yield _answer(response, offset, what)

    return ask


def _open(opener: urllib.request.OpenerDirector, url: str, part: dict[str, str]) -> Any:
    request = urllib.request.Request(quote(url, safe=_AS_WRITTEN), headers={"User-Agent": "regrow", "Accept-Encoding": "identity", **part})
    try:
        return opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not part:
            raise
        error.close()  # there is nothing behind what is here already: it is not the beginning of this file, or all of it
        return _open(opener, url, {})


def _answer(response: Any, offset: int, what: str) -> Answer:
    headers = response.headers
    if (packed := (headers["Content-Encoding"] or "").lower()) not in ("", "identity", "gzip", "x-gzip"):  # gzip is told by its bytes
        raise RegrowError(f"{what} comes packed as {packed}.", "Download it by hand, and name the file.")
    length = int(headers["Content-Length"]) if (headers["Content-Length"] or "").isdigit() else None
    start = offset if response.status == 206 else 0
    if response.status == 206 and not (headers["Content-Range"] or "").startswith(f"bytes {offset}-"):
        raise Interruption("another part of the file was sent than was asked for")
    return Answer(start, None if length is None else start + length, _version(headers), iter(lambda: response.read(_CHUNK), b""))


def _version(headers: HTTPMessage) -> str | None:
    """What If-Range takes: a strong ETag, or else the date (RFC 9110, 13.1.5)."""
    etag = headers["ETag"]
    return etag if etag and not etag.startswith("W/") else headers["Last-Modified"]


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """An encrypted address must not lead to one that is not."""

    def __init__(self, what: str) -> None:
        self._what = what

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://") and not (is_loopback(newurl) and is_loopback(req.full_url)):
            raise RegrowError(
                f"{self._what} leads to {without_secrets(newurl)}, which is not https.", "Name an address that stays encrypted."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in _AGAIN:
            raise Interruption(f"the server answers {error.code} {error.reason}") from None
        if error.code in _LOCKED:
            raise RegrowError(
                f"{what} is not open to everybody: {error.code} {error.reason}.", "Download it by hand, and name the file."
            ) from None
        reason = " ".join(str(error.reason).split())
        raise RegrowError(f"{what} is not there: {error.code} {reason}.", "Correct the address.") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            remedy = "Trust its certificate on this machine (SSL_CERT_FILE), or download the file by hand."
            raise RegrowError(f"{what}: {error.reason.verify_message}.", remedy) from None
        raise Interruption(f"the server cannot be reached ({error.reason})") from None
    except (OSError, HTTPException) as error:
        raise Interruption(f"the connection broke ({' '.join(str(error).split()) or type(error).__name__})") from None
    except ValueError as error:
        raise RegrowError(f"{what} leads to an address that is none: {error}.", "Name another.") from None
