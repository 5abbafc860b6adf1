"""The loop: it learns, it resumes exactly, it raises alarms, it refuses to go on with rubbish."""

import io
import itertools
import shutil
from dataclasses import replace

import pytest
import torch
import torch._inductor.config
from model_fixtures import SMALL_AST, TINY_TEXT, model_config, processor, tiny_model
from prepared_fixtures import write_prepared

from mulan_core import MuLanModel
from mulan_core.classifier import AudioClassifier
from mulan_core.config import TrainConfig
from mulan_core.data.batches import TrainingBatches, validation_batch
from mulan_core.errors import UserError
from mulan_core.losses import chance_level, contrastive_loss
from mulan_core.tasks import ClassifierTask, ContrastiveTask, effective_rank, mean_pairwise_cosine
from mulan_core.training import build_optimizer, fit, learning_rate, uses_bf16

CONFIG = TrainConfig(
    steps=6,
    batch_size=6,
    num_workers=1,
    audio_lr=2e-3,
    text_lr=2e-3,  # the tests' text encoder starts from random weights
    warmup_steps=2,
    checkpoint_every=3,
    log_every=1,
    precision="fp32",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def batches_of(prepared, config=CONFIG, rank=0):
    frontend = model_config().frontend
    return TrainingBatches.of_pairs(
        prepared, config, lambda texts: processor()(text=texts), frontend=frontend, rank=rank
    )


def run(prepared, config=CONFIG, state=None, model=None):
    points, states = [], {}
    fit(
        ContrastiveTask(model or tiny_model(), config),
        batches_of(prepared, config).from_step,
        config=config,
        report=lambda step, values: points.append((step, values)),
        save=lambda step, state: states.update({step: torch_copy(state)}),
        state=state,
    )
    return points, states


def torch_copy(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_loss_falls_below_chance(prepared):
    points, _ = run(
        prepared, replace(CONFIG, steps=60, batch_size=12, log_every=20, spec_time_mask=0, spec_freq_mask=0)
    )
    assert points[-1][1]["loss"] < chance_level(12) - 0.5
    assert points[-1][1]["alarm/at_chance"] == 0.0


def test_a_run_cut_off_and_resumed_repeats_the_uncut_one(prepared):
    points, states = run(prepared)
    resumed, _ = run(prepared, state=states[3], model=tiny_model(seed=9))
    assert [step for step, _ in resumed] == [4, 5, 6]
    for (_, uncut), (_, again) in zip(points[3:], resumed, strict=True):
        assert again["loss"] == pytest.approx(uncut["loss"], abs=1e-6)
        assert again["tau"] == pytest.approx(uncut["tau"], abs=1e-7)


@pytest.mark.parametrize("workers", [2, 3, 6])
def test_workers_share_the_global_batch(prepared, workers):
    whole = batches_of(prepared, replace(CONFIG, batch_size=12))[5]
    config = replace(CONFIG, batch_size=12, num_workers=workers)
    parts = [batches_of(prepared, config, rank=rank)[5] for rank in range(workers)]
    for name in ("waveforms", "spec_masks", "ids"):
        assert torch.equal(whole.inputs[name], torch.cat([part.inputs[name] for part in parts])), name
    assert whole.sources == sum((part.sources for part in parts), ())


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_batches_from_any_step_on_are_bit_equal(prepared, readers):
    straight = list(batches_of(prepared).from_step(0))
    config = replace(CONFIG, num_loader_workers=readers)
    for first in (1, 4, CONFIG.steps):
        for batch, again in zip(straight[first:], batches_of(prepared, config).from_step(first), strict=True):
            assert batch.step == again.step
            assert all(torch.equal(value, again.inputs[name]) for name, value in batch.inputs.items())


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs a C++ compiler")
def test_compiled_towers_give_the_same_losses(prepared):
    def losses(*, compiled):
        config = replace(CONFIG, steps=2, checkpoint_every=2, compile=compiled)
        points, _ = run(prepared, config, model=tiny_model(SMALL_AST))
        return [values["loss"] for _, values in points]

    with torch._inductor.config.patch(fallback_random=True):  # the compiler's own dropout draws other numbers
        assert losses(compiled=True) == pytest.approx(losses(compiled=False), abs=1e-5)


def test_ids_tell_tracks_and_texts_apart(prepared):
    batches = batches_of(prepared, replace(CONFIG, batch_size=60))
    draws = batches.sampler.batch(0)
    tracks, texts = batches[0].inputs["ids"].unbind(1)
    for i, one in enumerate(draws):
        for j, other in enumerate(draws):
            assert (tracks[i] == tracks[j]).item() == (one.row == other.row)
            assert (texts[i] == texts[j]).item() == (one.text == other.text)


def test_the_cache_of_decoded_clips_does_not_change_a_batch(prepared):
    small = batches_of(prepared, replace(CONFIG, decoded_cache_mb=0))
    large = batches_of(prepared)
    for step in (0, 1, 0):
        assert torch.equal(small[step].inputs["waveforms"], large[step].inputs["waveforms"])
    assert len(small._decoded) == 0 < len(large._decoded)


def test_the_validation_loss_is_that_of_each_track_once_by_the_model_as_it_is_used(prepared):
    config = replace(CONFIG, batch_size=5, audio_chunk=2, text_chunk=3)
    arguments = (prepared, config, lambda texts: processor()(text=texts))
    batch, again = (validation_batch(*arguments, frontend=model_config().frontend) for _ in range(2))
    assert all(torch.equal(batch.inputs[name], again.inputs[name]) for name in batch.inputs)
    assert len(batch.sources) == 5 and len({int(row) for row in batch.inputs["ids"][:, 0]}) == 5
    task = ContrastiveTask(tiny_model(), config)
    task.train()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    found = task.validation_loss(batch, bf16=False)
    assert task.model.training and all(torch.equal(before[k], v) for k, v in task.model.state_dict().items())
    model = task.model.eval()
    with torch.no_grad():
        audio = model.get_audio_features(batch.inputs["waveforms"])
        text = model.get_text_features(batch.inputs["input_ids"], batch.inputs["attention_mask"])
        assert found == pytest.approx(float(contrastive_loss(audio, text, model.tau)), abs=1e-5)


def test_without_validation_tracks_there_is_no_batch_to_validate_on(tmp_path):
    folder = write_prepared(tmp_path / "prepared", valid=1)
    assert validation_batch(folder, CONFIG, None, frontend=model_config().frontend) is None
    shutil.rmtree(folder / "valid")
    assert validation_batch(folder, CONFIG, None, frontend=model_config().frontend) is None


def test_tau_stays_in_its_range_and_the_alarm_says_so(prepared):
    model = tiny_model()
    with torch.no_grad():
        model.log_tau.fill_(-20.0)
    model.clamp_tau_()
    points, _ = run(prepared, replace(CONFIG, steps=2, audio_lr=1e-9), model=model)
    assert points[-1][1]["tau"] == pytest.approx(model.tau_min, rel=1e-3)
    assert points[-1][1]["alarm/tau_at_bound"] == 1.0


def test_non_finite_steps_are_skipped_counted_and_end_the_run(prepared):
    model = tiny_model()
    with torch.no_grad():
        model.audio_tower.projection.weight[0, 0] = float("nan")
    before = {name: value.clone() for name, value in model.text_tower.state_dict().items()}
    with pytest.raises(UserError, match="3 steps in a row had a non-finite loss"):
        run(prepared, replace(CONFIG, max_bad_steps=3), model=model)
    for name, value in model.text_tower.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} changed in a step that should have been skipped"


def test_learning_rate_warms_up_and_falls():
    rates = [learning_rate(step, peak=1.0, warmup_steps=5, steps=50) for step in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in itertools.pairwise(rates[5:]))
    assert 0.01 <= rates[-1] < 0.02


def test_groups_cover_every_trainable_parameter_once_and_spare_vectors_from_decay():
    model = tiny_model(trainable_layers=1)
    groups = build_optimizer(ContrastiveTask(model, CONFIG), CONFIG).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        assert all((p.ndim < 2) == (group["weight_decay"] == 0.0) for p in group["params"])
    text = {id(p) for p in model.text_tower.encoder.parameters() if p.requires_grad}
    assert {id(p) for g in groups if g["name"].startswith("text") for p in g["params"]} == text


def test_spread_of_vectors():
    same = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    assert mean_pairwise_cosine(same) == pytest.approx(1.0, abs=1e-5)
    assert effective_rank(same) == pytest.approx(1.0, abs=1e-3)
    assert mean_pairwise_cosine(torch.eye(4)) == pytest.approx(0.0, abs=1e-6)
    assert effective_rank(torch.eye(4)) == pytest.approx(4.0, rel=1e-4)


def test_precision_follows_the_choice_and_auto_the_hardware():
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)
    assert uses_bf16("auto", cpu) == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_the_saved_weights_are_the_moving_average_and_training_goes_on_with_the_live_ones(prepared):
    decay = 0.5
    config = replace(CONFIG, ema_decay=decay, steps=3, checkpoint_every=1)
    plain, model = tiny_model(), tiny_model()
    live, kept = [], []
    for subject, configuration, weights in ((plain, replace(config, ema_decay=None), live), (model, config, kept)):

        def save(step, state, subject=subject, weights=weights):
            weights.append(subject.audio_tower.projection.weight.detach().clone())

        fit(
            ContrastiveTask(subject, configuration),
            batches_of(prepared, configuration).from_step,
            config=configuration,
            report=lambda *_: None,
            save=save,
        )
    expected = tiny_model().audio_tower.projection.weight.detach()
    for ours, theirs in zip(kept, live, strict=True):
        expected = decay * expected + (1 - decay) * theirs
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.audio_tower.projection.weight.detach(), live[-1], atol=1e-7, rtol=0)


def test_a_resumed_run_goes_on_with_its_average(prepared):
    config = replace(CONFIG, ema_decay=0.9)
    _, states = run(prepared, config)
    _, resumed = run(prepared, config, state=states[3], model=tiny_model(seed=9))
    for name, value in states[6]["average"].items():
        torch.testing.assert_close(resumed[6]["average"][name], value, atol=1e-6, rtol=0)
        assert not torch.equal(value, states[6]["model"][name])


def test_a_classifier_learns_the_labels_and_warms_up_the_tower(prepared, tmp_path):
    config = replace(CONFIG, steps=40, batch_size=12, audio_chunk=6, gradient_caching=True, log_every=10)
    model_numbers = model_config()
    batches, labels = TrainingBatches.of_labels(prepared, config, frontend=model_numbers.frontend)
    assert labels == ["pitch:high", "pitch:low", "pitch:middle", "shape:buzzing", "shape:smooth"]
    model, points = AudioClassifier.from_config(model_numbers, labels), []
    fit(
        ClassifierTask(model, config),
        batches.from_step,
        config=config,
        report=lambda step, values: points.append(values["loss"]),
        save=lambda *_: model.save_pretrained(tmp_path / "classifier"),
    )
    assert points[0] > 0.3, points
    assert points[-1] < 0.15, points
    again = AudioClassifier.from_pretrained(tmp_path / "classifier")
    batch = batches[0].inputs
    with torch.no_grad():
        logits = again(batch["waveforms"])
    assert ((logits > 0) == batch["labels"].bool()).float().mean() > 0.9
    started = replace(model_numbers, audio=replace(model_numbers.audio, pretrained=str(tmp_path / "classifier")))
    tower = MuLanModel.from_config(started, text_config=TINY_TEXT).audio_tower
    for name, value in model.audio_tower.encoder.state_dict().items():
        assert torch.equal(value, tower.encoder.state_dict()[name]), name
    with pytest.raises(UserError, match="holds no classifier"):
        AudioClassifier.from_pretrained(tmp_path)


def test_the_closed_classifier_loss_is_that_of_all_labels(prepared):
    """Against a plain cross entropy, one label at a time; chunks and caching change nothing."""
    model_numbers = model_config()
    losses = []
    for chunk, caching in ((None, False), (4, False), (4, True)):
        config = replace(CONFIG, batch_size=12, audio_chunk=chunk, gradient_caching=caching, batch_norm="frozen")
        batches, labels = TrainingBatches.of_labels(prepared, config, frontend=model_numbers.frontend)
        model = AudioClassifier.from_config(model_numbers, labels)
        task = ClassifierTask(model, config)
        task.train()
        batch = batches[0]
        losses.append(task.forward_backward(batch, bf16=False).item())
        chances = torch.sigmoid(model(batch.inputs["waveforms"], batch.inputs["spec_masks"])).double()
    truth = batch.inputs["labels"].bool()
    plain = -torch.where(truth, chances.log(), (1 - chances).log()).mean().item()
    assert losses == pytest.approx([plain] * 3, abs=1e-6)
