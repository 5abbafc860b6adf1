"""mulan export through the real command: a saved model in, programs and their report out; mistakes in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig, TextTowerConfig
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

MULAN = Path(sys.executable).parent / "mulan"
TEXT = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)


def export(*arguments):
    return subprocess.run([MULAN, "export", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = ModelConfig(
        frontend=FrontendConfig(window_s=0.5),
        audio=AudioTowerConfig(layer_type="basic", embedding_size=4, hidden_sizes=(4, 4), depths=(1, 1)),
        text=TextTowerConfig(pretrained="demo-minilm"),
    )
    folder = tmp_path_factory.mktemp("saved")
    MuLanModel.from_config(config, text_config=TEXT).save_pretrained(folder)
    MuLanProcessor.from_config(config).save_pretrained(folder)
    return folder


def test_a_saved_model_is_exported(model, tmp_path):
    done = export(model, tmp_path / "onnx", "--int8", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files = [program["file"] for program in json.loads(done.stdout)]
    assert files == ["audio.onnx", "text.onnx", "text.int8.onnx"]
    assert {*files, "processor_config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "onnx").iterdir()}


def test_mistakes_are_one_line(model, tmp_path):
    BertModel(TEXT).save_pretrained(tmp_path / "bert")
    (tmp_path / "file").write_text("")
    for arguments, sentence in (
        ((tmp_path / "bert", tmp_path / "out"), "that of a 'bert' model"),
        ((model, tmp_path / "file"), "is a file; name a folder"),
    ):
        done = export(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("mulan: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert sentence in done.stderr
