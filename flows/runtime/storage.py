"""Places that hold large files: a folder that every worker sees, or a bucket by its URL (any fsspec file system)."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

from flows.runtime.catalogues import Catalogue
from flows.runtime.settings import Settings
from mulan_core.errors import UserError

if TYPE_CHECKING:
    from serving.edits import Edits

MODEL_FOLDER = "model"
"""The part of a checkpoint that is a model to load; the rest is the optimiser's."""


@dataclass(frozen=True)
class Storage:
    """A place that has been written to."""

    path: str
    """Without its scheme, as Ray wants it."""
    filesystem: FileSystem

    def run_options(self) -> dict[str, Any]:
        """What Ray's RunConfig takes of it."""
        return {"storage_path": self.path, "storage_filesystem": self.filesystem}


def open_storage(location: str, *, variable: str) -> Storage:
    """Open a folder or URL after a small file was written there, read and removed: better now than hours later.

    Args:
        location: a folder, or a URL that fsspec knows.
        variable: where the user named it.

    Raises:
        UserError: if it cannot be used.
    """
    try:
        filesystem, path = files_of(location)
        probe = f"{path.rstrip('/')}/.mulan-{uuid.uuid4().hex[:8]}"
        if not location.startswith(("s3://", "gs://")):  # these have no folders, and nobody asked for a new bucket
            filesystem.makedirs(path, exist_ok=True)
        filesystem.pipe_file(probe, b"mulan")
        same = filesystem.cat_file(probe) == b"mulan"
        filesystem.rm_file(probe)
    except ImportError as error:
        raise UserError(
            f"{location} ({variable}) needs a package that is not here: pip install 'mulan[s3]' or 'mulan[gcs]'"
        ) from error
    except Exception as error:  # of any of the libraries behind fsspec
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{location} cannot be used: {reason}; correct {variable} or the credentials (AWS_* for S3), or ask for "
            "the right to read, write and list there"
        ) from error
    if not same:
        raise UserError(f"{location} ({variable}) gives back other bytes than were written")
    # Of a folder too: Ray would take its path for an address, in which % and ? mean something else.
    return Storage(path, LocalFileSystem() if _is_local(filesystem) else PyFileSystem(FSSpecHandler(filesystem)))


def open_edits(settings: Settings, catalogue: Catalogue) -> Edits:
    """What was added to a catalogue and deleted over the API: beside its state, or in the bucket of the checkpoints.

    There replicas on any machine reach it, and it goes by the registered model's name, which they know. Edits that lie
    beside the state already stay there, whatever is named later: an empty bucket would take them for undone.
    """
    from serving.edits import Edits

    beside = catalogue.state(settings.home) / "edits"
    if "://" in settings.checkpoints and not beside.exists():
        return Edits(f"{settings.checkpoints.rstrip('/')}/edits/{catalogue.model}")
    return Edits(beside)


def files_of(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a folder or URL, and the path there; a folder may have any name, fsspec's own signs too."""
    if "://" in location:
        return fsspec.core.url_to_fs(location)  # type: ignore[no-any-return]
    return fsspec.filesystem("file"), str(Path(location).absolute())


def address_of(location: str, path: str) -> str:
    """The address of a path that Ray names, below a location: with its scheme again."""
    scheme, separator, _ = location.partition("://")
    return f"{scheme}://{path}" if separator else path


def fetch_model(checkpoint: str, copy: Path) -> Path | None:
    """The model's folder of a checkpoint on this machine; None where the checkpoint is gone.

    Args:
        checkpoint: its address.
        copy: where a model that lies on a server is copied to, once.
    """
    filesystem, path = files_of(f"{checkpoint}/{MODEL_FOLDER}")
    if _is_local(filesystem):
        return Path(path) if Path(path).is_dir() else None
    if copy.is_dir():
        return copy
    if not filesystem.isdir(path):
        return None
    copy.parent.mkdir(parents=True, exist_ok=True)
    arriving = Path(tempfile.mkdtemp(dir=copy.parent))
    try:
        filesystem.get(path, str(arriving / MODEL_FOLDER), recursive=True)
        (arriving / MODEL_FOLDER).replace(copy)
    finally:
        shutil.rmtree(arriving)
    return copy


def _is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    return "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,))
