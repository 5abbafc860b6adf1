"""The stage ``judge``: what judges the texts, by hash. DVC sees a changed rule or classifier by this file alone.

It runs each time, so it imports nothing that takes long.
"""

from __future__ import annotations

import json

from flows.runtime.workspace import Workspace
from mulan_core.text.fingerprint import fingerprint


def note_judge(workspace: Workspace) -> None:
    """Write the hashes of the rules' code and of a classifier's weights to a workspace's ``.mulan/data/judge.json``.

    Raises:
        UserError: if ``text.lf_classifier`` names a folder without a classifier.
    """
    classifier = workspace.config.text.lf_classifier
    judge = fingerprint(workspace.folder / classifier if classifier else None)
    noted = workspace.folder / ".mulan" / "data" / "judge.json"
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(judge), encoding="utf-8")
