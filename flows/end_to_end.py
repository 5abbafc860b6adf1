"""The flow ``end_to_end``: prepare -> train -> evaluate -> register -> index -> serve, each a flow of its own."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.evaluate import evaluate
from flows.index import index
from flows.prepare import prepare
from flows.register import register
from flows.serve import serve as serve_release
from flows.session import Session, open_session
from flows.train import train


@flow(name="end_to_end", description="From a manifest to served search.")
def end_to_end(
    manifest: str | None = None, playlists: str | None = None, params: str | None = None, serve: bool = True
) -> dict[str, Any]:
    """Run every stage; a stage whose inputs have not changed does nothing.

    Args:
        manifest: table of tracks with at least the columns uri and text; null takes the working folder's
            catalogue (the demo in a checkout).
        playlists: table of playlists with titles and descriptions.
        params: a YAML file of numbers for an own manifest.
        serve: also deploy the new release.

    Returns:
        What each stage returned, and ``stages``: seconds a stage. Without ``index`` and ``serve`` where the
        gate refused the candidate: the release that served before goes on serving.
    """
    with open_session(manifest, playlists, params) as session:
        if serve:
            session.check_exposed()
        arguments: dict[str, Any] = {"manifest": manifest, "playlists": playlists, "params": params}
        result: dict[str, Any] = {"prepare": prepare(**arguments), "train": train(**arguments)}
        result["evaluate"] = evaluate(**arguments)["sets"]["own"]
        result["register"] = register(**arguments)
        if result["register"]["passed"]:
            result["index"] = index(**arguments, promote=not serve)
            if serve:
                # It becomes champion once it answers: a release that does not come up changes nothing.
                result["serve"] = serve_release(**arguments, version=result["index"]["version"])
                result["index"]["promoted"] = True
        result["stages"] = dict(session.stages)
        create_markdown_artifact(_summary(result, session), key="end-to-end", description="What the flow made")
        return result


def _summary(result: dict[str, Any], session: Session) -> str:
    gate = result["register"]
    lines = [
        f"**Version {gate['version']}** of `mulan` {'passed' if gate['passed'] else 'was refused by'} the gate.",
        "",
        *(f"- {reason}" for reason in gate["reasons"]),
        "",
        "| metric | value | chance |",
        "|---|---:|---:|",
    ]
    report = result["evaluate"]
    for name, value in sorted(report["metrics"].items()):
        chance = report["chance"].get(name)
        lines.append(f"| {name} | {value:.3f} | {'' if chance is None else format(chance, '.3f')} |")
    lines += ["", "| stage | seconds |", "|---|---:|"]
    lines += [f"| {stage} | {seconds:.1f} |" for stage, seconds in session.stages.items()]
    lines += ["", f"MLflow run `{result['train']['run_id']}`, data `{result['prepare']['data_hash']}`."]
    if "serve" in result:
        lines += ["", f"Served at {result['serve']['url']}"]
    return "\n".join(lines)
