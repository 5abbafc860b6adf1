"""The command ``export``: a saved model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.reporting import AsJson, print_json
from flows.runtime.terminal import Table, console


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write the text tower with 8-bit weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write both towers as ONNX, which runs without Python and torch, and compare them with the model.

    Example: mulan export model/ onnx/ --int8
    """
    from dataclasses import asdict

    from mulan_core.export import export_onnx
    from mulan_core.model import MuLanModel
    from mulan_core.processor import MuLanProcessor

    opened, processor = MuLanModel.from_pretrained(model), MuLanProcessor.from_pretrained(model)
    written = export_onnx(opened, processor, out, int8=int8)
    if as_json:
        print_json([asdict(program) for program in written])
        return
    table = Table("file", "MB", "largest difference", "smallest cosine", title=f"Exported to {out}")
    for program in written:
        difference, cosine = f"{program.max_difference:.1e}", f"{program.min_cosine:.4f}"
        table.add_row(program.file, f"{program.megabytes:.1f}", difference, cosine)
    console.print(table)
