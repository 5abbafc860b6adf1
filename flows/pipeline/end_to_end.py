"""The flow ``end_to_end``: prepare -> train -> evaluate -> register -> index -> serve, each a flow of its own."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.pipeline.evaluate import evaluate
from flows.pipeline.gate import register
from flows.pipeline.index import index
from flows.pipeline.prepare import prepare
from flows.pipeline.release import serve as serve_release
from flows.pipeline.run_page import run_page
from flows.pipeline.train import train
from flows.pipeline.versions import count_new_tracks
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.numbers import CountOrNone
from flows.runtime.session import open_session
from mulan_core.counts import counted
from mulan_core.ranges import fit


@flow(name="end_to_end", description="From a manifest to served search.", **FAILURE_HOOKS)
def end_to_end(
    manifest: str | None = None,
    playlists: str | None = None,
    params: str | None = None,
    serve: bool = True,
    min_new_tracks: int = 0,
) -> dict[str, Any]:
    """Run every stage; a stage whose inputs have not changed does nothing.

    Args:
        manifest: table of tracks with at least the columns uri and text; null takes the working folder's
            catalogue (the demo in a checkout).
        playlists: table of playlists with titles and descriptions.
        params: a YAML file of numbers for an own manifest.
        serve: also deploy the new release.
        min_new_tracks: train only where at least this many tracks are new since the champion was trained. With fewer,
            the champion's model is given an index of the catalogue as it is now.

    Returns:
        What each stage returned; ``stages``: seconds a stage; ``seconds``: of it all, the services' start included.
        Without ``index`` and ``serve`` where the gate refused the candidate: the release that served before goes on
        serving. Without ``serve`` where the candidate is champion already and nothing runs that would go on serving
        it. Where too few tracks are new: ``skipped``, the reason, and nothing of training.
    """
    min_new_tracks = fit(CountOrNone, min_new_tracks, "min_new_tracks")
    with open_session(manifest, playlists, params) as session:
        if serve:
            session.check_exposed()
        arguments: dict[str, Any] = {"manifest": manifest, "playlists": playlists, "params": params}
        result: dict[str, Any] = {"prepare": prepare(**arguments)}
        model = None
        if champion := session.registry.get("champion") if min_new_tracks else None:
            new = count_new_tracks(session.workspace, session.registry)
            if new < min_new_tracks:
                model = champion.number
                result["skipped"] = (
                    f"{counted(new, 'track is', 'tracks are')} new since champion {model} was "
                    f"trained, fewer than {min_new_tracks:,}"
                )
        if model is None:
            result["train"] = train(**arguments)
            result["evaluate"] = evaluate(**arguments)["sets"]["own"]
            result["register"] = register(**arguments)
        if model or result["register"]["passed"]:
            # Serving on a Ray that ends with this command is a trial, which the champion has passed.
            champion, candidate = session.registry.get("champion"), result.get("register", {}).get("version")
            tried = bool(not session.stack.ray_address and champion and champion.number == candidate)
            result["index"] = index(**arguments, model=model, promote=not serve or tried)
            if serve and not tried:
                # It becomes champion once it answers: a release that does not come up changes nothing.
                result["serve"] = serve_release(**arguments, version=result["index"]["version"])
                result["index"] |= {"promoted": True, "url": result["serve"]["url"], "not_served": None}
        result |= {"stages": dict(session.stages), "seconds": time.perf_counter() - session.opened}
        create_markdown_artifact(run_page(result, session), key="end-to-end", description="What the flow made")
        return result
