"""Supervised baselines: the short-chunk CNN is its authors', trains in our loop, and is measured as any model is."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from model_fixtures import SMALL_AST, model_config, tiny_model
from prepared_fixtures import write_prepared
from sklearn.metrics import roc_auc_score
from torch import nn

from mulan_core.classifier import AudioClassifier
from mulan_core.config import AudioTowerConfig, EvaluateConfig, FrontendConfig, ModelConfig, TrainConfig, load_config
from mulan_core.data import shards
from mulan_core.data.batches import TrainingBatches
from mulan_core.errors import UserError
from mulan_core.evaluation.encoders import open_encoder
from mulan_core.evaluation.sets.playlists import OWN
from mulan_core.evaluation.sets.prepared import read_content
from mulan_core.evaluation.suite import evaluate
from mulan_core.model import MuLanModel
from mulan_core.tasks import ClassifierTask
from mulan_core.towers.audio import audio_config
from mulan_core.towers.short_chunk import ShortChunkConfig, ShortChunkModel, ShortChunkTower
from mulan_core.training import fit

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = AudioTowerConfig(kind="short_chunk", hidden_sizes=(8, 8, 16, 16), pooling="max")
TRAIN = TrainConfig(
    steps=40, batch_size=12, num_workers=1, audio_lr=3e-3, warmup_steps=4, precision="fp32", log_every=10,
    checkpoint_every=40, spec_time_mask=0, spec_freq_mask=0,
)  # fmt: skip


def authors_model(image_B1FT: torch.Tensor, model: ShortChunkModel) -> torch.Tensor:
    """A plain restatement of ShortChunkCNN up to its last layer, with the same weights."""
    hidden = nn.functional.batch_norm(image_B1FT, *_norm(model.norm))
    for layer in model.layers:
        hidden = nn.functional.conv2d(hidden, layer.convolution.weight, layer.convolution.bias, padding=1)
        hidden = nn.functional.batch_norm(hidden, *_norm(layer.norm)).relu()
        hidden = nn.functional.max_pool2d(hidden, 2)
    assert hidden.shape[2] == 1
    hidden = hidden.squeeze(2)
    if hidden.shape[-1] != 1:
        hidden = nn.functional.max_pool1d(hidden, hidden.shape[-1])
    hidden = nn.functional.linear(hidden.squeeze(2), model.hidden.weight, model.hidden.bias)
    return nn.functional.batch_norm(hidden, *_norm(model.hidden_norm)).relu()


def _norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def test_the_published_size_and_layers() -> None:
    config = load_config(CONFIGS / "short_chunk.yaml").model
    tower = ShortChunkTower(audio_config(config), 50)
    sizes = [1, 128, 128, 256, 256, 256, 256, 512]
    convolutions = sum(9 * i * o + o + 2 * o for i, o in pairwise(sizes))
    assert sum(p.numel() for p in tower.parameters()) == convolutions + 2 + 513 * 512 + 2 * 512 + 513 * 50
    image = torch.randn(2, 1, 128, 231)
    with torch.no_grad():
        expected = authors_model(image, tower.eval().encoder)
        assert torch.allclose(tower.encoder(image).pooler_output, expected, atol=1e-5)
        assert torch.allclose(tower(image[:, 0]), tower.projection(expected), atol=1e-5)


def test_the_residual_variant_has_two_convolutions_and_a_shortcut() -> None:
    torch.manual_seed(0)
    model = ShortChunkModel(ShortChunkConfig(hidden_sizes=(8, 16), residual=True)).eval()
    image = torch.randn(2, 1, 12, 20)
    with torch.no_grad():
        hidden = model.norm(image)
        for layer in model.layers:
            inner = layer.second_norm(layer.second(layer.first_norm(layer.first(hidden)).relu()))
            hidden = (inner + layer.shortcut_norm(layer.shortcut(hidden))).relu()
        assert hidden.shape == (2, 16, 3, 5)
        assert torch.equal(model(image).last_hidden_state, hidden)


@pytest.mark.parametrize("residual", [False, True])
def test_saved_it_opens_as_it_was_in_a_classifier_and_in_mulan(tmp_path: Path, residual: bool) -> None:
    numbers = model_config(replace(SMALL, residual=residual))
    classifier = AudioClassifier.from_config(numbers, ["a", "b"]).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    waves = 0.1 * torch.randn(3, 32_000)
    with torch.no_grad():
        again = AudioClassifier.from_pretrained(tmp_path / "classifier")
        assert torch.equal(again(waves), classifier(waves))
    mulan = tiny_model(replace(SMALL, residual=residual, pretrained=str(tmp_path / "classifier")))
    for name, value in classifier.audio_tower.encoder.state_dict().items():
        assert torch.equal(value, mulan.audio_tower.encoder.state_dict()[name]), name
    mulan.save_pretrained(tmp_path / "mulan")
    with torch.no_grad():
        opened = MuLanModel.from_pretrained(tmp_path / "mulan")
        assert torch.equal(opened.get_audio_features(waves), mulan.get_audio_features(waves))


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names 7 layers; each halves the log-mel, here 64 x 200: .* at most 6"):
        audio_config(model_config(replace(SMALL, hidden_sizes=(8,) * 7)))
    with pytest.raises(UserError, match="short_chunk takes max"):
        replace(SMALL, pooling="mean")
    AudioClassifier.from_config(model_config(SMALL), ["a"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="residual False"):
        tiny_model(replace(SMALL, residual=True, pretrained=str(tmp_path)))


@pytest.mark.parametrize("audio", [SMALL, SMALL_AST], ids=["short-chunk", "ast"])
def test_trained_on_labels_it_goes_through_the_tagging_suite(tmp_path: Path, audio: AudioTowerConfig) -> None:
    """A row of the paper's Table 4: trained by the loop, its class scores measured like any model's."""
    prepared = write_prepared(tmp_path / "prepared", train=36, test=24)
    numbers = ModelConfig(frontend=FrontendConfig(window_s=1.0), audio=audio, hop_s=0.5)
    config = replace(TRAIN, audio_lr=TRAIN.audio_lr if audio is SMALL else 1e-3)
    batches, labels = TrainingBatches.of_labels(prepared, config, frontend=numbers.frontend)
    model = AudioClassifier.from_config(numbers, labels)
    fit(
        ClassifierTask(model, config),
        batches.from_step,
        config=config,
        report=lambda *_: None,
        save=lambda *_: model.save_pretrained(tmp_path / "model"),
    )

    encoder = open_encoder(tmp_path / "model", device="cpu")
    content = read_content(OWN, prepared)
    rows = pq.read_table(prepared / "test").to_pylist()
    waves = [shards.decode_flac(row["audio"]) for row in rows]
    ids = [row["track_id"] for row in rows]
    scores_NC = encoder.embed_tracks(ids, waves, sampling_rate=16_000)
    report, evidence = evaluate(
        replace(content, tracks={"test": content.tracks["test"]}),
        {"test": (ids, scores_NC)},
        embed_texts=encoder.embed_texts,
        unknown_texts=encoder.unknown_texts,
        class_prompts=encoder.class_prompts,
        config=EvaluateConfig(bootstrap=0, templates=("the sound of {}", "{} music")),
    )
    truth_NC = np.array([[label in row["labels"] for label in labels] for row in rows])
    for facet in ("pitch", "shape"):
        columns = [c for c, label in enumerate(labels) if label.startswith(facet)]
        expected = np.mean([roc_auc_score(truth_NC[:, c], scores_NC[:, c]) for c in columns])
        assert report["metrics"][f"tagging/{facet}/roc_auc"] == pytest.approx(expected, abs=1e-9)
        assert expected > 0.9, facet
    np.testing.assert_allclose(evidence.class_scores(), scores_NC[np.argsort(ids)], atol=1e-7)
    assert not any(name.startswith(("retrieval", "triplets")) for name in report["metrics"])
    assert any("have no vector" in note for note in report["notes"])
