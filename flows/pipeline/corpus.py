"""The stage ``corpus``: the demo's catalogue, composed and rendered. Own catalogues do without it."""

from __future__ import annotations

from flows.runtime.progress import bar
from flows.runtime.workspace import Workspace
from mulan_core.demo.corpus import build_corpus


def build_demo(workspace: Workspace) -> None:
    """Build the demo corpus that a workspace's ``params.yaml`` describes, where it says that the catalogue lies.

    Raises:
        UserError: see ``build_corpus``.
    """
    config = workspace.config
    with bar("corpus", total=config.corpus.size) as update:
        build_corpus(config.corpus, workspace.folder / config.catalogue, progress=update)
