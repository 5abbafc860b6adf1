"""The stages of dvc.yaml, as DVC calls them: ``mulan stage ...``."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import typer

from flows.runtime import ending
from serving.supervised_process import die_with_parent

app = typer.Typer(no_args_is_help=True)


@app.callback()
def stages() -> None:
    """Stages as DVC calls them."""
    die_with_parent(signal.SIGINT)  # to SIGTERM Ray answers with a dump of its stack
    ending.be_quiet()


@app.command("corpus")
def stage_corpus() -> None:
    """Build the demo corpus that params.yaml describes."""
    from flows.runtime.progress import bar
    from mulan_core.config import load_config
    from mulan_core.data.demo.corpus import build_corpus

    config = load_config("params.yaml")
    with bar("corpus", total=config.corpus.size) as update:
        build_corpus(config.corpus, Path(config.catalogue), progress=update)


@app.command("judge")
def stage_judge() -> None:
    """Note what judges the texts, by hash: DVC sees a changed rule or classifier by this file."""
    from mulan_core.config import load_config
    from mulan_core.text.fingerprint import fingerprint

    classifier = load_config("params.yaml").text.lf_classifier
    judge = fingerprint(Path(classifier) if classifier else None)
    Path(".mulan/data").mkdir(parents=True, exist_ok=True)
    Path(".mulan/data/judge.json").write_text(json.dumps(judge), encoding="utf-8")


@app.command("text")
def stage_text() -> None:
    """Judge the texts of the catalogue that params.yaml names."""
    from flows.pipeline.text import judge_texts as step
    from flows.runtime.progress import bar
    from flows.runtime.stack import ray_for_stage
    from flows.runtime.workspace import Workspace

    here = Workspace(Path.cwd())
    catalogue, tokenizer = Path(here.config.catalogue).resolve(), here.config.model.text.pretrained
    with ray_for_stage(), bar("text") as update:
        step(catalogue, here.texts, here.config.text, tokenizer=tokenizer, progress=update)


@app.command("prepare")
def stage_prepare() -> None:
    """Prepare the catalogue that params.yaml names."""
    from flows.pipeline.prepare import build_shards as step
    from flows.runtime import progress
    from flows.runtime.stack import ray_for_stage
    from flows.runtime.workspace import Workspace
    from mulan_core.data.shards import TEXTS

    here = Workspace(Path.cwd())
    catalogue, texts = Path(here.config.catalogue).resolve(), here.texts / TEXTS
    with ray_for_stage(), progress.bar("prepare") as update:
        counts = step(catalogue, here.prepared, here.config.prepare, texts=texts, progress=update)
    changes = ", ".join(f"{number:,} {change}" for change, number in counts["changes"].items())
    progress.console.print(f"prepare: {changes}")


@app.command("set")
def stage_set(name: str) -> None:
    """Prepare an evaluation set that params.yaml names."""
    from dataclasses import replace

    from flows.pipeline.prepare import build_shards as step
    from flows.runtime import progress
    from flows.runtime.stack import ray_for_stage
    from flows.runtime.workspace import SET_CATALOGUES, Workspace

    here = Workspace(Path.cwd())
    clip_s = here.config.evaluate.sets[name].clip_s
    config = replace(here.config.prepare, clip_s=clip_s or here.config.prepare.clip_s)
    with ray_for_stage(), progress.bar(f"prepare {name}") as update:
        counts = step((SET_CATALOGUES / name).resolve(), here.sets / name, config, progress=update)
    changes = ", ".join(f"{number:,} {change}" for change, number in counts["changes"].items())
    progress.console.print(f"prepare {name}: {changes}")
