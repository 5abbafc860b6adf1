"""Exported towers against the model: batch sizes and lengths of their own, and what 8 bits cost."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from model_fixtures import SMALL_AST, SMALL_RESNET, TINY_TEXT, model_config, processor, tiny_model

from mulan_core import MuLanModel, MuLanProcessor
from mulan_core.config import FrontendConfig
from mulan_core.errors import UserError
from mulan_core.evaluation.sets.texts import read_ontology_pairs
from mulan_core.evaluation.triplets import triplet_accuracy
from mulan_core.export import export_onnx, export_programs

ONTOLOGY = Path(__file__).parents[3] / "shared" / "data" / "audioset" / "ontology.json"
TEXTS = (["techno"], ["sad piano", "", "a rainy night in the city"], ["piano " * 90] * 2)
SECONDS = ([0.7], [2.0, 5.3, 1.0])


def session(file):
    """A program on one thread: inputs by name to vectors; what it does not know is left out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    program = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in program.get_inputs()]
    return lambda **inputs: program.run(None, {name: inputs[name].numpy() for name in names})[0]


def waves(seconds, rate_hz):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(int(s * rate_hz))).astype(np.float32) for s in seconds]


def same(found, wanted):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5
    assert (found * wanted).sum(1).min() > 1 - 1e-6


KALDI = FrontendConfig(
    window_s=2.0,
    window="symmetric",
    remove_dc=True,
    preemphasis=0.97,
    mel_scale="kaldi",
    log_floor=1e-7,
    log_offset=0.0,
)


def minilm():
    """MiniLM's own vectors: the demo's text tower with the identity as projection; a ResNet, the default front-end."""
    config = dataclasses.replace(model_config(SMALL_RESNET, pooling="mean", max_tokens=128), embedding_dim=384)
    model = MuLanModel.from_config(config)
    with torch.no_grad():
        model.text_tower.projection.weight.copy_(torch.eye(384))
        model.text_tower.projection.bias.zero_()
    return model, MuLanProcessor.from_config(config)


def kaldi_ast():
    """An AST on Kaldi's features; texts by [CLS]."""
    config = dataclasses.replace(model_config(SMALL_AST), frontend=KALDI)
    return MuLanModel.from_config(config, text_config=TINY_TEXT), processor()


@pytest.fixture(scope="module", params=[minilm, kaldi_ast])
def exported(request, tmp_path_factory):
    model, own = request.param()
    folder = tmp_path_factory.mktemp("onnx") / "made"
    return model, folder, export_onnx(model, own, folder, int8=request.param is minilm)


def test_onnx_equals_the_model_at_any_batch_and_length(exported):
    model, folder, _ = exported
    opened = MuLanProcessor.from_pretrained(folder)  # it came along
    with torch.inference_mode():
        for seconds in SECONDS:
            inputs = opened(audio=waves(seconds, 44_100), sampling_rate=44_100)
            same(session(folder / "audio.onnx")(**inputs), model.get_audio_features(inputs["waveforms"]).numpy())
        for texts in TEXTS:
            inputs = opened(text=texts)
            same(session(folder / "text.onnx")(**inputs), model.get_text_features(**inputs).numpy())


def test_the_report_names_each_file_and_how_near_it_came(exported):
    _, folder, written = exported
    assert [program.file for program in written] == ["audio.onnx", "text.onnx", "text.int8.onnx"][: len(written)]
    for program in written:
        assert program.megabytes == pytest.approx((folder / program.file).stat().st_size / 1e6)
        assert (program.max_difference < 1e-5) == ("int8" not in program.file)
        assert program.min_cosine > 0.96


def test_nothing_of_this_machine_is_written_and_axes_have_names(exported):
    _, folder, _ = exported
    for name, axes in (("audio", ["windows", 32_000]), ("text", ["texts", "tokens"])):
        content = (folder / f"{name}.onnx").read_bytes()
        assert b"site-packages" not in content
        assert str(Path(__file__).parents[2]).encode() not in content
        shape = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim
        assert [axis.dim_param or axis.dim_value for axis in shape] == axes


def test_torch_programs_equal_the_model_after_a_save(tmp_path):
    model = tiny_model()
    opened = {}
    for name, program in export_programs(model, processor()).items():
        torch.export.save(program, tmp_path / f"{name}.pt2")
        opened[name] = torch.export.load(tmp_path / f"{name}.pt2").module()
    with torch.inference_mode():
        for seconds, texts in zip(SECONDS, TEXTS, strict=False):
            windows = processor()(audio=waves(seconds, 16_000), sampling_rate=16_000)["waveforms"]
            same(opened["audio"](waveforms=windows).numpy(), model.get_audio_features(windows).numpy())
            tokens = processor()(text=texts)
            same(opened["text"](**tokens).numpy(), model.get_text_features(**tokens).numpy())


def test_the_eager_model_is_as_it_was_after_an_export(exported):
    """The branches for ONNX are gone again: grouped texts and the fast transform give the numbers of a new model."""
    model, _, _ = exported
    new = MuLanModel(model.config).eval()
    new.load_state_dict(model.state_dict())
    tokens, wave = processor()(text=TEXTS[1]), processor()(audio=waves([2.0], 16_000), sampling_rate=16_000)
    with torch.inference_mode():
        same(model.get_text_features(**tokens).numpy(), new.get_text_features(**tokens).numpy())
        same(model.get_audio_features(**wave).numpy(), new.get_audio_features(**wave).numpy())


@pytest.mark.parametrize("exported", [minilm], indirect=True)
def test_8_bits_cost_a_known_part_of_the_quality(exported):
    """Cosine with float32 above .96 (mean .99), and less than .01 of the accuracy on the 35,532 ontology triplets."""
    if not ONTOLOGY.exists():
        pytest.skip(f"no ontology at {ONTOLOGY}")
    _, folder, (_, exact, small) = exported
    assert small.megabytes < 0.27 * exact.megabytes
    opened, vectors = MuLanProcessor.from_pretrained(folder), {}
    for file in (exact.file, small.file):
        encode = session(folder / file)
        # one at a time, as queries come: activations of a batch share a scale
        vectors[file] = [
            np.concatenate([encode(**opened(text=text)) for text in texts])
            for texts in zip(*read_ontology_pairs(ONTOLOGY, []), strict=True)
        ]
    cosines = np.concatenate([(a * b).sum(1) for a, b in zip(*vectors.values(), strict=True)])
    assert cosines.min() > 0.96
    assert cosines.mean() > 0.99
    accuracy, accuracy_small = (triplet_accuracy(*pair).accuracy for pair in vectors.values())
    assert accuracy == pytest.approx(0.937, abs=0.002)
    assert abs(accuracy_small - accuracy) < 0.01


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        export_programs(tiny_model().train(), processor())
    for file in ("file", "text.int8.onnx"):
        (tmp_path / file).write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        export_onnx(tiny_model(), processor(), tmp_path / "file")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript: run pip install 'mulan\[export\]'"):
        export_onnx(tiny_model(), processor(), tmp_path)
