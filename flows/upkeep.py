"""What is done to a catalogue as a whole: taken from a home of an earlier version, noted as used, renamed, removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from flows.registry import Registry
from flows.runtime.catalogues import (
    DEMO,
    MODEL_NAME,
    Catalogue,
    changing,
    check_free,
    has_records,
    note_use,
    read_records,
)
from flows.runtime.endpoint import served
from flows.runtime.journal import remove_journal
from flows.runtime.settings import Settings
from flows.runtime.stack_file import is_running, read_stack
from flows.runtime.storage import open_edits
from flows.runtime.terminal import errors
from flows.runtime.tracking import NameTakenError
from flows.runtime.workspace import Workspace
from flows.runtime.workspace_lock import hold
from mulan_core.counts import counted
from mulan_core.data import shards
from mulan_core.errors import UserError
from serving.milvus import MilvusServer
from serving.store import TrackStore


def use(settings: Settings, workspace: Workspace, *, manifest: str | None) -> Catalogue:
    """Note that a command works on a workspace; the first one in a home of an earlier version adopts its catalogues."""
    _settle(settings)
    return note_use(settings.home, workspace.folder, manifest=manifest)


def adopt(settings: Settings) -> None:
    """Give each catalogue of a home of an earlier version its own registered model; nothing is removed.

    Versions of ``mulan`` that were made of a catalogue's data are copied to its model, aliases too.
    """
    with changing(settings.home) as records:
        if has_records(settings.home):  # another process was faster
            return
        shared = list(reversed(Registry.of(settings, Catalogue(DEMO)).versions()))
        for name, catalogue in records.by_name.items():
            own = replace(catalogue, model=f"{MODEL_NAME}-{name}")
            workspace = Workspace(settings.home / str(catalogue.workspace))
            made_here = [version for version in shared if workspace.has_had(version.tag("data_hash") or "")]
            if made_here:
                copied = Registry.of(settings, own).copy(made_here)
                numbers = ", ".join(version.number for version in made_here)
                errors.print(
                    f"mulan: the catalogue {name} has a registered model of its own now, {own.model}, with "
                    f"{counted(len(copied), 'version')} copied from {MODEL_NAME} ({numbers}); `mulan index "
                    f"--catalogue {name} --model champion` builds its champion's collection"
                )
            records.by_name[name] = own


def describe(settings: Settings) -> list[dict[str, Any]]:
    """The catalogues of a home, the last used first, as ``mulan catalogue list`` shows them."""
    records, addresses = read_records(settings.home), served(settings.home)
    rows = []
    for catalogue in sorted(
        records.by_name.values(),
        key=lambda catalogue: (catalogue.name == records.last, catalogue.used or ""),
        reverse=True,
    ):
        champion = Registry.of(settings, catalogue).get("champion")
        rows.append(
            {
                "name": catalogue.name,
                "manifest": catalogue.manifest,
                "tracks": _count_tracks(settings, catalogue),
                "model": catalogue.model,
                "champion": champion.number if champion else None,
                "endpoint": addresses.get(catalogue.name),
                "used": catalogue.used,
                "last": catalogue.name == records.last,
            }
        )
    return rows


def _count_tracks(settings: Settings, catalogue: Catalogue) -> int | None:
    """Tracks that are prepared; None where none are, or the workspace is a working folder somewhere."""
    if (folder := catalogue.folder(settings.home)) is None:
        return None
    path = Workspace(folder).prepared / shards.MANIFEST
    return int(pq.read_metadata(path).num_rows) if path.is_file() else None


def rename(settings: Settings, old: str, new: str) -> Catalogue:
    """Give a catalogue another name, and its registered model with it; its folder and collections keep theirs.

    Raises:
        UserError: if there is no such catalogue, the name cannot be had, or somebody serves it or works on it.
    """
    with _at_rest(settings, old, "rename") as catalogue, changing(settings.home) as records:
        if catalogue.workspace is None:
            raise UserError(f"{DEMO} is the name of the working folder's catalogue, which it keeps")
        check_free(records, new)
        records.by_name[old] = replace(catalogue, renaming=new)
    return _finish_rename(settings, old, new)


def _finish_rename(settings: Settings, old: str, new: str) -> Catalogue:
    """Do what a rename has begun; each step may have been done before."""
    with changing(settings.home) as records:
        if old not in records.by_name:  # another process was faster
            return records.named(new)
        catalogue = records.by_name[old]
        renamed = replace(catalogue, name=new, model=f"{MODEL_NAME}-{new}", renaming=None)
        taken: NameTakenError | None = None
        try:
            Registry.of(settings, catalogue).rename(renamed.model)
        except NameTakenError as error:  # it keeps its own
            taken, records.by_name[old] = error, replace(catalogue, renaming=None)
        else:
            open_edits(settings, catalogue).move(open_edits(settings, renamed).location)
            del records.by_name[old]
            records.by_name[new] = renamed
            records.last = new if records.last == old else records.last
    if taken:
        raise taken
    return renamed


def _settle(settings: Settings) -> None:
    """Have the records as this version keeps them, and finish a rename that was cut off."""
    if not has_records(settings.home):
        adopt(settings)
    for name, catalogue in read_records(settings.home).by_name.items():
        if catalogue.renaming:
            _finish_rename(settings, name, catalogue.renaming)
            errors.print(f"mulan: the catalogue {name} is {catalogue.renaming} now; its rename had been cut off")


def remove(settings: Settings, name: str, ask: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Remove a catalogue: its collections, registered model and workspace. Your own files and MLflow's runs stay.

    Args:
        settings: where everything is.
        name: of the catalogue; of the demo the files of a checkout stay.
        ask: is shown what goes, and says whether it may.

    Returns:
        What went: ``workspace``, ``model``, ``versions``, ``collections``, ``edits``, the tracks that were added and
        deleted over the API; with ``removed`` false where ``ask`` said no, and nothing went.

    Raises:
        UserError: if there is no such catalogue, or somebody serves it or works on it.
    """
    with _at_rest(settings, name, "remove") as catalogue, _store(settings, catalogue) as store:
        registry, edits = Registry.of(settings, catalogue), open_edits(settings, catalogue)
        versions = registry.versions()
        collections = {version.tag("collection") for version in versions}
        if catalogue.key:
            collections |= {
                collection for collection in _list(store) if collection.startswith(f"tracks_{catalogue.key}_")
            }
        there = sorted(collection for collection in _list(store) if collection in collections)
        workspace = catalogue.folder(settings.home)
        goes = {
            "catalogue": name,
            "workspace": workspace and str(workspace),
            "model": catalogue.model,
            "versions": [version.number for version in versions],
            "collections": there,
            "edits": [edit.track_id for edit in edits.all()],
        }
        if not ask(goes):
            return goes | {"removed": False}
        if store:
            store.collections.drop_alias()
            for collection in there:
                store.collections.drop(collection)
        registry.remove()
        edits.remove()
        remove_journal(catalogue.state(settings.home))
        with changing(settings.home) as records:
            records.by_name.pop(name, None)
            if records.last == name:
                records.last = records.latest(list(records.by_name))
        if workspace:
            shutil.rmtree(workspace)
        return goes | {"removed": True}


@contextmanager
def _at_rest(settings: Settings, name: str, work: str) -> Iterator[Catalogue]:
    """A catalogue that nobody serves, kept from all others meanwhile."""
    _settle(settings)
    catalogue = read_records(settings.home).named(name)
    state = catalogue.state(settings.home)
    if is_running(state):
        stack = read_stack(state)
        what = f"is served at {stack.endpoint}" if stack and stack.endpoint else "is being worked on"
        who = f" (process {stack.pid})" if stack else ""
        raise UserError(f"the catalogue {name} {what}{who}; stop that first")
    folder = catalogue.folder(settings.home)
    if folder is None or not folder.is_dir():
        yield catalogue  # a working folder, whichever it is, stays as it is
        return
    with hold(folder, work, alone=True):
        yield catalogue


@contextmanager
def _store(settings: Settings, catalogue: Catalogue) -> Iterator[TrackStore | None]:
    """The store, started for the moment where none runs; None where nothing was ever kept in it."""
    folder = catalogue.state(settings.home) / "milvus"
    if settings.milvus_uri is None and not folder.exists():
        yield None
        return
    if settings.milvus_uri is None:
        with MilvusServer(folder) as server, closing(TrackStore(server.uri, live=catalogue.live_alias)) as store:
            yield store
        return
    with closing(TrackStore(settings.milvus_uri, token=settings.milvus_token, live=catalogue.live_alias)) as store:
        yield store


def _list(store: TrackStore | None) -> list[str]:
    return store.collections.list_collections() if store else []
