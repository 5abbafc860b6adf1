"""The towers: the paper's sizes, what they pool, and a frozen part that is truly frozen."""

from pathlib import Path

import pytest
import torch
from model_fixtures import SMALL_AST, SMALL_RESNET, TINY_TEXT, tiny_model
from transformers import ASTConfig, BertConfig

from mulan_core.config import AudioTowerConfig, load_config
from mulan_core.errors import UserError
from mulan_core.model import MuLanConfig, MuLanModel
from mulan_core.towers.ast import ASTTower
from mulan_core.towers.resnet import ResNetTower, resnet_config
from mulan_core.towers.text import TextTower

CONFIGS = Path(__file__).parents[2] / "configs"


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def paper_model(name):
    """The architecture without weights: BertConfig() is bert-base-uncased."""
    config = load_config(CONFIGS / name).model
    with torch.device("meta"):
        return MuLanModel(MuLanConfig.from_model_config(config, text_config=BertConfig()))


def test_resnet50_has_the_size_of_the_paper():
    model = paper_model("resnet50.yaml")
    # torchvision's ResNet-50 has 25,557,032: less its classifier and two of three input channels, plus 2048 -> 128
    assert count(model.audio_tower) == 25_557_032 - 1000 * 2049 - 2 * 64 * 49 + 2049 * 128
    # bert-base-uncased has 109,482,240 with the pooler that MuLan does not read
    assert count(model.text_tower) == 109_482_240 - 769 * 768 + 769 * 128
    assert model.frontend.bank_FK.shape == (64, 257)


def test_ast_has_the_size_of_the_paper():
    model = paper_model("ast.yaml")
    tower = model.audio_tower
    assert len(tower.encoder.layers) == 12
    assert tower.encoder.embeddings.position_embeddings.shape == (1, 12 * 99 + 2, 768)
    # AST is DeiT-base-distilled, 87,338,192 on ImageNet: less its two classifiers and two of three input channels,
    # plus positions for 12 x 99 patches instead of 14 x 14, plus 768 -> 128
    assert count(tower) == 87_338_192 - 2 * 1000 * 769 - 2 * 256 * 768 + (12 * 99 - 14 * 14) * 768 + 769 * 128


def test_resnet_pools_over_time_and_mel():
    tower = ResNetTower(resnet_config(SMALL_RESNET), 8).eval()
    features = torch.randn(2, 64, 128)
    hidden = tower.encoder(features[:, None]).last_hidden_state
    assert torch.allclose(tower(features), tower.projection(hidden.mean((2, 3))), atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "cls_dist"])
def test_ast_pools_its_special_tokens(pooling):
    config = ASTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_mel_bins=64, max_length=100)
    tower = ASTTower(config, 8, pooling=pooling).eval()
    features = torch.randn(2, 64, 100)
    tokens = tower.encoder(features.transpose(1, 2)).last_hidden_state
    pooled = tokens[:, 0] if pooling == "cls" else (tokens[:, 0] + tokens[:, 1]) / 2
    assert torch.allclose(tower(features), tower.projection(pooled), atol=1e-6)


def text_tower(pooling="cls", trainable_layers=None):
    torch.manual_seed(0)
    return TextTower(TINY_TEXT, 8, pooling=pooling, trainable_layers=trainable_layers)


IDS = torch.tensor([[101, 7, 8, 102], [101, 9, 102, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_does_not_change_a_text(pooling):
    tower = text_tower(pooling).eval()
    assert torch.allclose(tower(IDS, MASK)[1], tower(IDS[1:, :3], MASK[1:, :3])[0], atol=1e-6)


def test_the_masked_mean_is_the_mean_over_tokens():
    tower = text_tower("mean").eval()
    hidden = tower.encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = tower.projection(torch.stack([hidden[0].mean(0), hidden[1, :3].mean(0)]))
    assert torch.allclose(tower(IDS, MASK), expected, atol=1e-6)


@pytest.mark.parametrize(("trainable", "layers"), [(None, {0, 1, 2}), (3, {0, 1, 2}), (1, {2}), (0, set())])
def test_only_the_upper_layers_train(trainable, layers):
    tower = text_tower(trainable_layers=trainable).train()
    tower(IDS, MASK).sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert {int(name.split(".")[3]) for name in trained if ".layer." in name} == layers
    assert ("encoder.embeddings.word_embeddings.weight" in trained) == (trainable is None)
    assert "projection.weight" in trained


def test_every_trainable_weight_gets_a_gradient():
    """DistributedDataParallel waits for ever for one that does not."""
    tower = text_tower(trainable_layers=2).train()
    tower(IDS, MASK).sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters() if parameter.requires_grad)


def test_the_frozen_part_has_no_dropout_and_no_graph():
    tower = text_tower(trainable_layers=1).train()
    outputs = []
    tower.encoder.encoder.layer[1].register_forward_hook(lambda *call: outputs.append(call[2]))
    tower(IDS, MASK)
    tower(IDS, MASK)
    # each call encodes texts of different lengths apart
    first, second = (
        torch.cat([o[0].flatten() if isinstance(o, tuple) else o.flatten() for o in half])
        for half in (outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :])
    )
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not torch.equal(tower(IDS, MASK), tower(IDS, MASK))  # the rest still drops out


def test_a_frozen_encoder_remembers_texts_without_changing_a_number(monkeypatch):
    tower = text_tower(trainable_layers=0)
    calls = []
    tower.encoder.register_forward_hook(lambda *call: calls.append(1))
    plain = tower.eval()(IDS, MASK)
    tower.train()
    first, num_calls = tower(IDS, MASK), len(calls)
    again = tower(IDS.flip(0), MASK.flip(0)).flip(0)
    assert len(calls) == num_calls, "texts met before were encoded again"
    torch.testing.assert_close(first, plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(first, again)
    first.sum().backward()
    assert tower.projection.weight.grad is not None
    with torch.no_grad():
        tower.encoder.embeddings.word_embeddings.weight.add_(1.0)
    tower.train()
    assert not torch.allclose(tower(IDS, MASK), first)
    monkeypatch.setattr("mulan_core.towers.text.MAX_REMEMBERED", 1)
    torch.testing.assert_close(tower(IDS, MASK), tower.eval()(IDS, MASK), rtol=1e-5, atol=1e-6)


def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(UserError, match="the encoder has 3 layers"):
        text_tower(trainable_layers=4)


def test_both_audio_towers_fit_the_model():
    for audio in (SMALL_RESNET, SMALL_AST):
        features = tiny_model(audio).get_audio_features(torch.randn(2, 32_000))
        assert features.shape == (2, 128)
    with pytest.raises(UserError, match="does not divide by num_heads"):
        tiny_model(AudioTowerConfig(kind="ast", pooling="cls", hidden_size=100, num_heads=3))
