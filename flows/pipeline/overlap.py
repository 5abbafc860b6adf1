"""Whether an evaluation set holds recordings that a model was trained on; its training data is found by hash in DVC."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.pipeline.sets import PlacedSet
from flows.pipeline.subjects import Subject
from flows.pipeline.versions import read_version
from flows.runtime.workspace import Workspace
from mulan_core.counts import counted
from mulan_core.data import shards
from mulan_core.data.overlap import check_overlaps, find_overlaps
from mulan_core.errors import UserError


def check_unseen(subject: Subject, placed: PlacedSet, workspace: Workspace, *, allow: bool) -> list[str]:
    """Refuse a set that shares recordings with what the model was trained on.

    Args:
        subject: the model; what it was trained on is known by the data's hash in the registry.
        placed: the set.
        workspace: whose DVC cache and remote hold that data.
        allow: go on all the same, and say how many.

    Returns:
        What the report should say: that it could not be checked, or how many recordings are shared.

    Raises:
        UserError: with the list of what is shared; see ``overlap.check_overlaps``.
    """
    if placed.definition.is_text_only or (placed.is_own and subject.data_hash == placed.data_hash):
        return []  # prepare has checked that split against its own training split
    unknown = "Overlap with its training data was not checked"
    if subject.data_hash is None:
        return [f"{unknown}: what {subject.name} was trained on is not known here."]
    try:
        trained_on = read_version(workspace, subject.data_hash)
    except UserError:
        return [f"{unknown}: the data {subject.data_hash[:8]} is neither in DVC's cache nor its remote."]
    train = trained_on.filter(pc.equal(trained_on["split"], "train"))
    manifest = pq.read_table(placed.path / shards.MANIFEST)
    test = manifest.filter(pc.is_in(manifest["track_id"], pa.array(placed.content.tracks["test"])))
    overlaps = find_overlaps(train, test)
    remedy = f"leave them out of one of the two, or measure {placed.name} all the same with --allow-overlap"
    check_overlaps(overlaps, remedy=remedy, allow=allow)
    return (
        [f"{counted(len(overlaps), 'recording is', 'recordings are')} in the training data as well (--allow-overlap)."]
        if overlaps
        else []
    )
