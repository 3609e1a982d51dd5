"""FSDP's sharded checkpoints: a folder of ``*.distcp`` files that torch.distributed.checkpoint wrote, with the table ``.metadata``.

torch reads the tensors with ``weights_only``, but the table with a plain ``pickle.load``, which runs whatever a file asks for.
So the table is read here, by an unpickler that knows the few classes it is made of and calls nothing else.
"""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from pipeline.errors import RegrowError

TABLE = ".metadata"
_CLASSES: dict[str, Any] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (
        *(metadata.Metadata, metadata.MetadataIndex, metadata.TensorStorageMetadata, metadata.BytesStorageMetadata),
        *(metadata.ChunkStorageMetadata, metadata.TensorProperties, metadata.StorageMeta, metadata._MEM_FORMAT_ENCODING),
        *(filesystem._StorageInfo, torch.Size),
    )
} | {
    "torch.serialization._get_layout": lambda name: torch.strided,  # of all layouts, weights have this one
    "collections.OrderedDict": dict,
    **{f"{module}.{name}": PurePosixPath for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")},
}


class FsdpShards:
    """The tensors of a checkpoint by name, each read when asked for.

    Attributes:
        shapes: every tensor's shape.
    """

    def __init__(self, folder: Path) -> None:
        self._reader = _Reader(folder, _read_table(folder))
        stored = self._reader.table.state_dict_metadata
        self._stored = {name: entry for name, entry in stored.items() if isinstance(entry, metadata.TensorStorageMetadata)}
        self.shapes = {name: tuple(entry.size) for name, entry in self._stored.items()}

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored, put together from its parts.

        Raises:
            RegrowError: a part is missing or cannot be read.
        """
        entry = self._stored[name]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is enough to read
                load({name: tensor}, storage_reader=self._reader, no_dist=True)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, CheckpointException) as error:
            first = " ".join(str(error).split())[:300]
            raise RegrowError(f"{self._reader.path}: {name} cannot be read: {first}", "Copy the checkpoint again, whole.") from None
        return tensor


class _Reader(filesystem.FileSystemReader):
    """torch's reader, with the table that was read safely."""

    def __init__(self, folder: Path, table: metadata.Metadata) -> None:
        super().__init__(folder)
        self.table = table

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        return self.table


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _CLASSES.get(f"{module}.{name}")
        dtype = getattr(torch, name, None) if module == "torch" else None
        if found is None and not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such table needs")
        return found or dtype


def _read_table(folder: Path) -> metadata.Metadata:
    path = folder / TABLE
    try:
        table = _Unpickler(io.BytesIO(path.read_bytes())).load()
        files = {info.relative_path for info in table.storage_data.values()}
    except FileNotFoundError:
        raise RegrowError(f"{path} is missing: the checkpoint was not written to its end.", "Name another checkpoint.") from None
    except Exception as error:  # a broken pickle raises anything
        raise RegrowError(f"{path} is no table of a sharded checkpoint: {' '.join(str(error).split())[:300]}.") from None
    for name in sorted(files):
        if PurePosixPath(name).name != name or not (folder / name).is_file():
            raise RegrowError(f"{folder} has no {name}, which {TABLE} names.", "Copy the checkpoint again, whole.")
    if not isinstance(table, metadata.Metadata):
        raise RegrowError(f"{path} is no table of a sharded checkpoint.")
    return table
