"""Gradient caching against the plain step with dropout and BatchNorm on, and many workers against one."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from model_fixtures import SMALL_AST, SMALL_RESNET, TINY_TEXT, run_workers, tiny_model

from mulan_core.config import TrainConfig
from mulan_core.gradcache import Encoding, average_over_workers, backward_through_vectors, freeze_batch_norm
from mulan_core.losses import contrastive_loss
from mulan_core.tasks import Batch, ContrastiveTask

CONFIG = TrainConfig(batch_size=12, num_workers=1, audio_chunk=2, text_chunk=3, precision="fp32")
WINDOW_S = 0.5


def batch_of(size, seed=0):
    """Noise, and texts of unequal length as random tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 12, (size,), generator=generator)
    mask = (torch.arange(12) < lengths[:, None]).long()
    return Batch(
        step=0,
        inputs={
            "waveforms": 0.1 * torch.randn(size, round(16_000 * WINDOW_S), generator=generator),
            "spec_masks": torch.tensor([[5, 8, 10, 4]]).repeat(size, 1),
            "input_ids": torch.randint(5, 999, mask.shape, generator=generator) * mask,
            "attention_mask": mask,
            "ids": torch.arange(2 * size).view(size, 2),
        },
        sources=(),
    )


def model_of(audio, dropout=0.1):
    TINY_TEXT.hidden_dropout_prob = TINY_TEXT.attention_probs_dropout_prob = dropout
    try:
        return tiny_model(audio, window_s=WINDOW_S)
    finally:
        TINY_TEXT.hidden_dropout_prob = TINY_TEXT.attention_probs_dropout_prob = 0.1


def step(config, audio=SMALL_RESNET, batch=None, dropout=0.1):
    """One step's loss, gradients and running statistics."""
    model = model_of(audio, dropout)
    task = ContrastiveTask(model, config)
    task.train()
    torch.manual_seed(3)
    loss = task.forward_backward(batch or batch_of(12), bf16=False)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    statistics = {name: b.clone() for name, b in model.named_buffers() if "running" in name}
    return loss, gradients, statistics, torch.get_rng_state()


def assert_equal_steps(one, other, atol):
    torch.testing.assert_close(one[0], other[0], atol=atol, rtol=0)
    for ours, theirs in zip(one[1:3], other[1:3], strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("audio", [SMALL_RESNET, SMALL_AST], ids=["resnet", "ast"])
@pytest.mark.parametrize("chunks", [(2, 3), (5, None), (None, 5), (7, 12)])
def test_caching_changes_nothing_with_dropout_and_batch_norm_on(audio, chunks):
    config = replace(CONFIG, audio_chunk=chunks[0], text_chunk=chunks[1])
    plain, cached = step(config, audio), step(replace(config, gradient_caching=True), audio)
    assert_equal_steps(plain, cached, atol=1e-6)
    assert torch.equal(plain[3], cached[3]), "the random state after the step must not tell the two apart"
    assert all(gradient.abs().sum() > 0 for name, gradient in cached[1].items() if "key.bias" not in name)


def test_dropout_draws_anew_in_each_chunk_and_the_same_in_both_passes():
    """Without replay the second pass would differentiate another function than the loss was taken of."""
    with_replay = step(replace(CONFIG, gradient_caching=True))
    other_draws = step(replace(CONFIG, text_chunk=5, gradient_caching=True))
    assert not torch.allclose(with_replay[0], other_draws[0], atol=1e-6)


def test_without_batch_norm_and_dropout_chunks_change_nothing_either():
    whole = step(replace(CONFIG, audio_chunk=None, text_chunk=None), SMALL_AST, dropout=0.0)
    for chunk in (1, 5, 100):
        chunked = replace(CONFIG, audio_chunk=chunk, text_chunk=chunk, gradient_caching=True)
        assert_equal_steps(whole, step(chunked, SMALL_AST, dropout=0.0), atol=1e-6)


def test_frozen_statistics_make_chunks_invisible_to_batch_norm():
    whole = step(replace(CONFIG, audio_chunk=None, text_chunk=None, batch_norm="frozen"), dropout=0.0)
    cached = step(replace(CONFIG, batch_norm="frozen", gradient_caching=True), dropout=0.0)
    assert_equal_steps(whole, cached, atol=1e-6)
    fresh = {name: b for name, b in model_of(SMALL_RESNET).named_buffers() if "running" in name}
    assert all(torch.equal(cached[2][name], fresh[name]) for name in fresh), "frozen statistics moved"
    assert any("normalization.weight" in name for name in cached[1]), "scale and shift still train"


def test_running_statistics_move_once_by_the_mean_over_chunks():
    """Against torch's own: every chunk alone through a fresh layer with momentum 1, then averaged."""
    norm, rows = torch.nn.BatchNorm1d(4), torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    encoding = Encoding(lambda chosen: norm(rows[chosen]), torch.arange(12).split(4), norm)
    for caching in (False, True):
        norm.reset_running_stats()
        backward_through_vectors([encoding], lambda vectors: vectors.square().sum(), caching=caching)
        means = torch.stack([chunk.mean(0) for chunk in rows.split(4)]).mean(0)
        variances = torch.stack([chunk.var(0) for chunk in rows.split(4)]).mean(0)
        torch.testing.assert_close(norm.running_mean, 0.1 * means)
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variances)


def test_a_step_that_is_not_finite_does_not_live_on_in_the_statistics():
    norm, rows = torch.nn.BatchNorm1d(4), torch.full((6, 4), torch.nan)
    encoding = Encoding(lambda chosen: norm(rows[chosen]), torch.arange(6).split(3), norm)
    backward_through_vectors([encoding], torch.sum, caching=True)
    assert norm.running_mean.tolist() == [0.0] * 4
    assert norm.running_var.tolist() == [1.0] * 4


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("momentum", [0.1, 0.03, None])
def test_a_layer_keeps_its_own_momentum_and_counts_steps_not_chunks(caching, momentum):
    """One chunk a step is what torch does by itself; three steps, since None means the mean over the steps so far."""
    rows = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    own, torchs = (torch.nn.BatchNorm1d(4, momentum=momentum) for _ in range(2))
    for of_step in rows:
        encoding = Encoding(lambda chosen, x=of_step: own(x[chosen]), [torch.arange(6)], own)
        backward_through_vectors([encoding], lambda v: v.square().sum(), caching=caching)
        torchs(of_step)
    assert own.momentum == momentum
    assert own.num_batches_tracked == 3
    torch.testing.assert_close(own.state_dict(), torchs.state_dict())
    encoding = Encoding(lambda chosen: own(rows[0][chosen]), torch.arange(6).split(3), own)
    backward_through_vectors([encoding], lambda v: v.square().sum(), caching=caching)
    assert own.num_batches_tracked == 4, "two chunks are one step"


def test_layers_without_running_statistics_have_none_to_move():
    norm, rows = torch.nn.BatchNorm1d(4, track_running_stats=False), torch.randn(6, 4)
    for caching in (False, True):
        encoding = Encoding(lambda chosen: norm(rows[chosen]), torch.arange(6).split(3), norm)
        loss, _ = backward_through_vectors([encoding], lambda v: v.square().sum(), caching=caching)
        assert torch.isfinite(loss)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("caching", [False, True])
def test_a_step_that_fails_leaves_the_layers_as_they_were(caching):
    norm, rows = torch.nn.BatchNorm1d(4), torch.randn(6, 4)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    encoding = Encoding(lambda chosen: norm(rows[chosen]), torch.arange(6).split(3), norm)

    def fail(vectors):
        raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        backward_through_vectors([encoding], fail, caching=caching)
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.state_dict(), before)
    linear = torch.nn.Linear(4, 2)  # a tower without such layers fails as it is
    with pytest.raises(ValueError, match="no loss"):
        backward_through_vectors(
            [Encoding(lambda c: linear(rows[c]), [torch.arange(6)], linear)], fail, caching=caching
        )


def test_only_one_graph_is_alive_at_a_time():
    """The point of it: with caching the graph of the whole batch never exists."""
    alive, most = set(), {}
    weight = torch.nn.Linear(3, 2)

    class Held(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, key):
            if torch.is_grad_enabled() or x.requires_grad:
                ctx.key = key
                alive.add(key)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            most["graphs"] = max(most.get("graphs", 0), len(alive))
            alive.discard(ctx.key)
            return grad, None

    rows = torch.randn(8, 3)
    encoding = Encoding(
        lambda chosen: Held.apply(weight(rows[chosen]), int(chosen[0])), torch.arange(8).split(2), weight
    )
    backward_through_vectors([encoding], lambda v: v.square().sum(), caching=False)
    assert most.pop("graphs") == 4
    backward_through_vectors([encoding], lambda v: v.square().sum(), caching=True)
    assert most["graphs"] == 1


def _worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    share = 12 // world
    whole = batch_of(12)
    part = {name: value[rank * share : (rank + 1) * share] for name, value in whole.inputs.items()}
    results = {}
    for name, config in VARIANTS.items():
        model = model_of(SMALL_RESNET, dropout=0.0)
        task = ContrastiveTask(model, replace(config, num_workers=world))
        task.train()
        loss = task.forward_backward(replace(whole, inputs=part), bf16=False)
        average_over_workers([p.grad for p in model.parameters()], bucket_bytes=10_000)
        average_over_workers([loss])
        gradients = {n: p.grad for n, p in model.named_parameters()}
        results[name] = (loss, gradients, {n: b for n, b in model.named_buffers() if "running" in n})
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


VARIANTS = {
    "plain": CONFIG,
    "cached": replace(CONFIG, gradient_caching=True),
    "frozen": replace(CONFIG, batch_norm="frozen", gradient_caching=True, audio_chunk=3),
    "masked": replace(CONFIG, mask_duplicates=True, loss="infonce"),
}


@pytest.mark.parametrize("world", [2, 3])
def test_many_workers_take_the_step_of_one(world, tmp_path):
    """Loss, every parameter's gradient and BatchNorm's statistics, to 1e-5."""
    run_workers(_worker, world, tmp_path)
    for name, config in VARIANTS.items():
        one = step(config, dropout=0.0)
        for rank in range(world):
            assert_equal_steps(one, torch.load(tmp_path / f"{rank}.pt")[name], atol=1e-5)


def test_freezing_reaches_batch_norm_alone():
    model = model_of(SMALL_RESNET).train()
    freeze_batch_norm(model)
    for module in model.modules():
        is_norm = isinstance(module, torch.nn.BatchNorm2d)
        assert module.training != is_norm or module is model.frontend or not is_norm


def test_equals_the_plain_forward_and_backward_of_the_model():
    """The whole batch at once is what anybody would write by hand."""
    config = replace(CONFIG, audio_chunk=None, text_chunk=None)
    batch = batch_of(12)
    loss, gradients, _, _ = step(config, SMALL_RESNET, batch, dropout=0.0)
    model = model_of(SMALL_RESNET, dropout=0.0).train()
    rest = {name: batch.inputs[name] for name in ("waveforms", "input_ids", "attention_mask", "spec_masks")}
    by_hand = contrastive_loss(*model(**rest), model.tau)
    by_hand.backward()
    torch.testing.assert_close(loss, by_hand.detach(), atol=1e-6, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)
