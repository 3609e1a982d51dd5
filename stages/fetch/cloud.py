"""Files in object stores (s3, gs, az, abfs, oci), through fsspec and the package for the store. Credentials are the package's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import MissingExtra, RegrowError
from pipeline.source import Cloud, glob_base, without_secrets
from stages.fetch.transfer import Answer, Ask, Interruption

_CHUNK = 2**23
_PACKAGES = {
    **dict.fromkeys(("s3",), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "az")),
    "oci": ("ocifs", "oci"),
}
"""By scheme: the package, and the extra of regrow that brings it."""
_VERSIONS = ("ETag", "etag", "md5Hash", "version_aware_id", "LastModified", "last_modified", "mtime")


class Store:
    """The files that a source names in an object store.

    Raises:
        MissingExtra: the package for this store is not installed.
    """

    def __init__(self, source: Cloud, option: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self._source, self._what = source, f"{option}: {source.url}"
        try:
            self._files: Any = fsspec.filesystem("abfs" if source.scheme == "abfss" else source.scheme)
        except ImportError:
            raise MissingExtra(self._what, *_PACKAGES[source.scheme]) from None
        except Exception as error:  # each package has exceptions of its own for credentials that are missing
            raise self._refused(error) from None

    def names(self) -> Mapping[str, str]:
        """Files by their name within the source: the plain file name for one file.

        Raises:
            RegrowError: there are none, or no access.
        """
        with self._explained():
            found = self._find()
        if not found:
            raise RegrowError(f"{self._what} is not there, or empty.", "Correct the address.")
        return found

    def _find(self) -> dict[str, str]:
        url = self._source.url
        base, pattern = glob_base(url.removeprefix(f"{self._source.scheme}://"))
        if pattern is None and self._files.isfile(url):
            return {url.rpartition("/")[2]: url}
        root = self._files._strip_protocol(f"{self._source.scheme}://{base}" if pattern else url).rstrip("/")
        paths = self._files.glob(url) if pattern else self._files.find(url)
        return {path[len(root) + 1 :]: path for path in sorted(paths) if not path.endswith("/") and path.startswith(f"{root}/")}

    def ask(self, path: str) -> Ask:
        """What asks for one file."""

        @contextmanager
        def ask(offset: int, version: str | None) -> Iterator[Answer]:
            with self._explained():
                info = self._files.info(path)
                found = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), None)
                start = offset if version is not None and version == found and offset <= info["size"] else 0
                yield Answer(start, info["size"], found, self._chunks(path, start, info["size"]))

        return ask

    def _chunks(self, path: str, start: int, size: int) -> Iterator[bytes]:
        for offset in range(start, size, _CHUNK):
            yield self._files.cat_file(path, start=offset, end=min(offset + _CHUNK, size))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (Interruption, RegrowError):
            raise
        except FileNotFoundError:
            raise RegrowError(f"{self._what} is not there.", "Correct the address.") from None
        except (ConnectionError, TimeoutError) as error:
            raise Interruption(f"the store cannot be reached ({error})") from None
        except Exception as error:  # each package has exceptions of its own
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> RegrowError:
        reason = without_secrets((str(error).strip() or type(error).__name__).splitlines()[0])
        package = _PACKAGES[self._source.scheme][0]
        return RegrowError(
            f"{self._what} cannot be had: {reason}", f"Check the address, the network and the credentials that {package} looks for."
        )
