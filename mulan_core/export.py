"""Both towers as programs that run without this code: torch.export, ONNX, and a text tower with 8-bit weights.

    audio.onnx      waveforms (N, S)                  -> vectors (N, D), one row a window
    text.onnx       input_ids, attention_mask (B, L)  -> vectors (B, D)
    text.int8.onnx  the same, a quarter of the size

N, B and L are free, S is one window. Front-end, projection and normalisation are inside, so what goes in is what
the processor makes, and what comes out are unit vectors; the processor's files lie beside them. The vector of a
whole track is the re-normalised mean of its windows' vectors, as ``model.mean_of_windows`` has it.

Shape letters: N windows, B texts, S samples of a window, L tokens, D embedding size.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

TOLERANCE = 1e-4
"""Most that a component of a float32 program's unit vectors may differ from the model's."""

_PROBES = (
    "techno",
    "sad piano",
    "a warm choir with slow strings",
    "music for a rainy night by the fire, with one guitar",
)


@dataclass(frozen=True)
class Exported:
    """One written program and how near it came to the model on a few probes."""

    file: str
    """Its name in the folder."""
    megabytes: float
    """Its size."""
    max_difference: float
    """Largest difference of a component from the model's unit vectors."""
    min_cosine: float
    """Smallest cosine with the model's vectors."""


def export_programs(model: MuLanModel, processor: MuLanProcessor) -> dict[str, ExportedProgram]:
    """Both towers by ``torch.export``, named ``audio`` and ``text``; ``torch.export.save`` writes them.

    Args:
        model: in evaluation mode.
        processor: of the model; gives the longest text.

    Raises:
        ValueError: if the model is in training mode, whose dropout would be exported too.
    """
    return {
        name: torch.export.export(tower, (), probes, dynamic_shapes=axes)
        for name, (tower, probes, axes) in _towers(model, processor).items()
    }


def export_onnx(
    model: MuLanModel, processor: MuLanProcessor, folder: str | Path, *, int8: bool = False
) -> list[Exported]:
    """Write both towers as ONNX and the processor's files, and run each program against the model.

    Args:
        model: in evaluation mode.
        processor: of the model.
        folder: where to write; made if it is not there, an earlier export in it is replaced.
        int8: also write the text tower with 8-bit weights. Its vectors differ (``Exported.min_cosine``), and a
            text's vector depends a little on the texts beside it: activations are scaled by their common range.

    Raises:
        UserError: if the libraries of the ``[export]`` extra are missing, or ``folder`` is a file.
        RuntimeError: if a float32 program's vectors differ from the model's by more than ``TOLERANCE``.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX export needs {error.name}: run pip install 'mulan[export]'") from error
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder to write the programs into")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.int8.onnx").unlink(missing_ok=True)  # of another model, if there is one
    written = []
    with _quiet():
        for name, (tower, probes, axes) in _towers(model, processor).items():
            file = folder / f"{name}.onnx"
            _write(file, tower, probes, axes)
            written.append(_compare(file, tower, probes))
            if written[-1].max_difference > TOLERANCE:
                raise RuntimeError(f"{file} differs from the model by {written[-1].max_difference:.1e} in a component")
            if name == "text" and int8:
                quantize(file, file.with_suffix(".int8.onnx"))
                written.append(_compare(file.with_suffix(".int8.onnx"), tower, probes))
    processor.save_pretrained(folder)
    return written


def quantize(source: Path, target: Path) -> None:
    """Write an ONNX program again with the weights of its products and its word embeddings in 8 bits.

    A scale for each output channel, which makes most of the quality; weights of 7 bits, since the products of 8
    may overflow on a CPU without VNNI (docs/decisions/0009-export.md has the alternatives, measured).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul", "Gather"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )


class _Audio(nn.Module):
    def __init__(self, model: MuLanModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.model.get_audio_features(waveforms)


class _Text(nn.Module):
    def __init__(self, model: MuLanModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids, attention_mask)


def _towers(model: MuLanModel, processor: MuLanProcessor) -> dict[str, tuple[nn.Module, dict[str, Tensor], Any]]:
    """Each tower with inputs to trace it and to compare by, and its free axes.

    The inputs: noise, a chord and silence; texts of unlike lengths, so that some are padded.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() before it is exported")
    time_S = np.arange(processor.window_samples) / processor.sample_rate_hz
    noise = np.random.default_rng(0).standard_normal(len(time_S))
    chord = np.sin(2 * np.pi * np.outer([220.0, 277.2, 329.6], time_S)).sum(axis=0)
    audio = processor(audio=[0.1 * noise, 0.2 * chord, 0 * noise], sampling_rate=processor.sample_rate_hz)
    text = processor(text=list(_PROBES))
    waveforms = {"waveforms": audio["waveforms"].to(model.device)}
    text_axes = {0: Dim("texts"), 1: Dim("tokens", max=processor.max_tokens)}
    return {
        "audio": (_Audio(model), waveforms, {"waveforms": {0: Dim("windows")}}),
        "text": (_Text(model), dict(text.to(model.device)), dict.fromkeys(text, text_axes)),
    }


def _write(file: Path, tower: nn.Module, probes: dict[str, Tensor], axes: Any) -> None:
    program: Any = torch.onnx.export(
        tower,
        kwargs=probes,
        input_names=list(probes),
        output_names=["vectors"],
        dynamic_shapes=axes,
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # traces with the folders of this machine
    program.save(file)


def _compare(file: Path, tower: nn.Module, probes: dict[str, Tensor]) -> Exported:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found_ND,) = session.run(None, {name: value.cpu().numpy() for name, value in probes.items()})
    with torch.inference_mode():
        wanted_ND = tower(**probes).cpu().numpy()
    return Exported(
        file=file.name,
        megabytes=file.stat().st_size / 1e6,
        max_difference=float(np.abs(found_ND - wanted_ND).max()),
        min_cosine=float((found_ND * wanted_ND).sum(axis=1).min()),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what no reader can act on: absent torchvision, deprecations inside torch, advice of the quantiser."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
