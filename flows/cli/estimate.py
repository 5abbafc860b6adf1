"""``mulan estimate``: what a training run over a catalogue takes, before it is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import Count, number
from flows.runtime.project import PROJECT
from flows.runtime.terminal import Table, console
from mulan_core.config import load_config
from mulan_core.counts import counted
from mulan_core.errors import UserError
from mulan_core.ranges import Range

if TYPE_CHECKING:
    from mulan_core.sizing import Plan

Clips = Annotated[float, Range(ge=1, le=1_000_000_000_000)]
PeakShare = Annotated[float, Range(gt=0, le=1)]
SIMULATED = (8, 16, 32, 64, 128, 256, 512)


def estimate(
    tracks: Annotated[float, number(Clips, "Clips to train on, such as 44e6.")],
    gpus: Annotated[int, number(Count, "GPUs, a worker each.")] = 8,
    *,
    model: Annotated[str, typer.Option(help="resnet50, ast, or a YAML file of numbers.")] = "resnet50",
    gpu: Annotated[str, typer.Option(help="h100, a100 or l4.")] = "h100",
    utilisation: Annotated[
        float | None, number(PeakShare, "Share of the GPU's peak that a step reaches. Default: an estimate.")
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Also 8 to 512 GPUs side by side.")] = False,
    as_json: AsJson = False,
) -> None:
    """Size a training run: storage, steps, hours, communication, memory, the index. docs/scaling.md has the formulas.

    Example: mulan estimate --tracks 44e6 --gpus 64
    """
    from mulan_core import sizing

    if gpu not in sizing.ACCELERATORS:
        raise UserError(f"there is no GPU {gpu!r} in the table; known: {', '.join(sizing.ACCELERATORS)}")
    file = PROJECT / "configs" / f"{model}.yaml"
    config = load_config(file if file.is_file() else Path(model))

    def size(workers: int) -> Plan:
        kind = sizing.ACCELERATORS[gpu]
        return sizing.plan(config, tracks=int(tracks), workers=workers, accelerator=kind, utilisation=utilisation)

    plans = [size(gpus)]
    if simulate:
        plans += [size(workers) for workers in SIMULATED if config.train.batch_size % workers == 0]
    if as_json:
        print_json([asdict(plan) | {"communication_share": plan.communication_share} for plan in plans])
        return
    _show(plans[0])
    if simulate:
        _show_side_by_side(plans[1:])


def _show(plan: Plan) -> None:
    table = Table(title=f"{counted(plan.tracks, 'track')} on {plan.workers} {plan.accelerator}", show_header=False)
    for what, value in (
        (
            "steps",
            f"{plan.steps:,} of {plan.pairs_of_a_worker * plan.workers:,} pairs, {plan.pairs_of_a_worker:,} a GPU",
        ),
        ("a step", f"{plan.step_s:.3f} s; {plan.communication_share:.1%} of it communication"),
        ("arithmetic", f"{plan.flops_of_a_step / 1e12:,.0f} TFLOP a step; {plan.parameters / 1e6:.0f} M parameters"),
        ("time", f"{plan.hours:,.1f} hours, {plan.gpu_hours:,.0f} GPU-hours"),
        ("shards", f"{plan.shards_bytes / 1e12:,.2f} TB in {counted(plan.num_shards, 'file')}"),
        ("reading", f"{plan.reading_bytes_s / 1e6:,.1f} MB a second a GPU; {plan.lanes_of_a_worker:g} lanes each"),
        (
            "a GPU holds",
            f"{plan.worker_state_bytes / 1e9:.1f} GB of weights and optimiser, and one chunk's activations",
        ),
        ("a checkpoint", f"{plan.checkpoint_bytes / 1e9:.1f} GB"),
        ("the index", f"{plan.index_bytes / 1e9:,.1f} GB of memory for Milvus"),
    ):
        table.add_row(what, value)
    console.print(table)
    if plan.lanes_of_a_worker % 1:
        console.print(f"set train.num_lanes to a multiple of {plan.workers}, so that each GPU reads its own lanes only")


def _show_side_by_side(plans: list[Plan]) -> None:
    table = Table("GPUs", "pairs each", "MB sent a step", "s a step", "sending", "hours", "GPU-hours")
    for plan in plans:
        sent = plan.communication.bytes / 1e6
        cells = (plan.workers, plan.pairs_of_a_worker, f"{sent:,.0f}", f"{plan.step_s:.3f}")
        table.add_row(
            *map(str, cells), f"{plan.communication_share:.1%}", f"{plan.hours:,.1f}", f"{plan.gpu_hours:,.0f}"
        )
    console.print(table)
