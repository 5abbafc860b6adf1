"""The losses against literal restatements, their closed-form gradient against autograd, many processes against one."""

import math

import pytest
import torch
import torch.distributed as dist
from model_fixtures import run_workers

from mulan_core.losses import FORMS, chance_level, contrastive_loss


def unit(batch, dims=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, dims, generator=generator, dtype=dtype)
    return x / x.norm(dim=1, keepdim=True)


def literal(audio, text, tau, form, ids=None):
    """Double sums, as printed, no log space; pairs that share an id are no negatives of each other."""
    size = len(audio)
    h = [[math.exp(float(audio[i] @ text[j]) / tau) for j in range(size)] for i in range(size)]
    losses = []
    for i in range(size):
        others = [j for j in range(size) if j != i and (ids is None or not (ids[i] == ids[j]).any())]
        row, column = sum(h[i][j] for j in others), sum(h[j][i] for j in others)
        if not others and form in ("mulan", "averaged"):
            losses.append(0.0)
        elif form == "mulan":
            losses.append(-math.log(h[i][i] / (row + column)))
        elif form == "averaged":
            losses.append(-math.log(h[i][i]) + 0.5 * (math.log(row) + math.log(column)))
        elif form == "infonce":
            losses.append(-0.5 * (math.log(h[i][i] / (row + h[i][i])) + math.log(h[i][i] / (column + h[i][i]))))
        else:
            prior = 1 / (size - 1)
            chance = [x * prior / (1 + x * prior) for x in h[i]]
            losses.append(-math.log(chance[i]) - sum(math.log(1 - chance[j]) for j in others))
    return torch.tensor(losses, dtype=torch.float64)


def by_autograd(audio, text, tau, form, ids=None):
    """The same losses on the full matrix, differentiable."""
    s = audio @ text.T / tau
    own = torch.eye(len(s), dtype=torch.bool)
    same = own if ids is None else (ids[:, None] == ids[None]).any(-1)
    if form == "siglip":
        s = s - math.log(len(s) - 1)
        others = torch.nn.functional.softplus(s).masked_fill(same, 0).sum(1)
        return torch.nn.functional.softplus(-s.diagonal()) + others
    negatives = s.masked_fill(same & ~own if form == "infonce" else same, -torch.inf)
    row, column = negatives.logsumexp(1), negatives.logsumexp(0)
    return (torch.logaddexp(row, column) if form == "mulan" else (row + column) / 2) - s.diagonal()


IDS = torch.tensor([[0, 5], [1, 6], [0, 7], [3, 6], [4, 9], [5, 10], [6, 11], [7, 5], [8, 12]])
"""Nine pairs: 0 and 2 of one track, 1 and 3 of one text, 0 and 7 of one text."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_equals_the_literal_double_sum(form, tau):
    audio, text = unit(9), unit(9, seed=1)
    expected = literal(audio, text, tau, form)
    got = contrastive_loss(audio, text, tau, form=form, reduction="none")
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)
    assert contrastive_loss(audio, text, tau, form=form).item() == pytest.approx(expected.mean().item(), abs=1e-12)
    total = contrastive_loss(audio, text, tau, form=form, reduction="sum")
    assert total.item() == pytest.approx(expected.sum().item(), abs=1e-11)


def test_gradient_equals_the_closed_form():
    """dL/ds_ij = exp(s_ij - m_i) + exp(s_ij - m_j) off the diagonal, -1 on it."""
    audio, text = unit(9).requires_grad_(), unit(9, seed=1).requires_grad_()
    tau = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    contrastive_loss(audio, text, tau, reduction="sum").backward()
    with torch.no_grad():
        s = audio @ text.T / tau
        off = s.clone().fill_diagonal_(-torch.inf)
        m = torch.logaddexp(off.logsumexp(1), off.logsumexp(0))
        grad_s = torch.exp(off - m[:, None]) + torch.exp(off - m[None, :]) - torch.eye(9, dtype=torch.float64)
        assert abs(grad_s.sum().item()) < 1e-12
        assert torch.allclose(audio.grad, grad_s @ text / tau, atol=1e-12)
        assert torch.allclose(text.grad, grad_s.T @ audio / tau, atol=1e-12)
        assert torch.allclose(tau.grad, -(grad_s * s).sum() / tau, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ids", [None, IDS], ids=["all", "duplicates masked"])
@pytest.mark.parametrize("chunk_rows", [1, 2, 4, 9, 100, None])
def test_losses_and_gradients_equal_autograd_whatever_the_chunks(form, ids, chunk_rows):
    ways = {}
    for name in ("closed form", "autograd"):
        audio, text = unit(9).requires_grad_(), unit(9, seed=1).requires_grad_()
        tau = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        if name == "autograd":
            losses = by_autograd(audio, text, tau, form, ids)
        else:
            losses = contrastive_loss(audio, text, tau, form=form, reduction="none", ids_b2=ids, chunk_rows=chunk_rows)
        # An uneven upstream gradient tells apart what a mean would average away.
        (losses * torch.linspace(-1, 2, 9, dtype=torch.float64)).sum().backward()
        ways[name] = (losses.detach(), audio.grad, text.grad, tau.grad)
    for ours, theirs in zip(*ways.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_duplicates_are_no_negatives(form):
    audio, text = unit(9), unit(9, seed=1)
    got = contrastive_loss(audio, text, 0.1, form=form, reduction="none", ids_b2=IDS)
    assert torch.allclose(got, literal(audio, text, 0.1, form, IDS), atol=1e-12)
    assert not torch.allclose(got, literal(audio, text, 0.1, form), atol=1e-3)
    different = torch.arange(18).view(9, 2)
    plain = contrastive_loss(audio, text, 0.1, form=form, reduction="none")
    assert torch.equal(contrastive_loss(audio, text, 0.1, form=form, reduction="none", ids_b2=different), plain)


@pytest.mark.parametrize("form", FORMS)
def test_pairs_without_any_negative_count_as_nothing(form):
    """A batch of one tag only: nothing to tell apart, nothing to learn, and no infinity."""
    audio, text = unit(4).requires_grad_(), unit(4, seed=1).requires_grad_()
    ids = torch.stack([torch.arange(4), torch.zeros(4, dtype=torch.long)], dim=1)
    loss = contrastive_loss(audio, text, 0.1, form=form, ids_b2=ids)
    loss.backward()
    assert loss.item() == pytest.approx(literal(audio.detach(), text.detach(), 0.1, form, ids).mean().item(), abs=1e-12)
    assert torch.isfinite(audio.grad).all()
    if form != "siglip":
        assert loss.item() == 0.0 and audio.grad.abs().max().item() < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_order_of_pairs_does_not_matter(form):
    audio, text, order = unit(7), unit(7, seed=1), torch.tensor([3, 0, 6, 2, 5, 1, 4])
    straight = contrastive_loss(audio, text, 0.1, form=form, reduction="none")
    permuted = contrastive_loss(audio[order], text[order], 0.1, form=form, reduction="none")
    assert torch.allclose(permuted, straight[order], atol=1e-12)


@pytest.mark.parametrize("form", ["mulan", "averaged", "infonce"])
def test_swapping_the_sides_does_not_matter(form):
    audio, text = unit(7), unit(7, seed=1)
    assert contrastive_loss(audio, text, 0.1, form=form).item() == pytest.approx(
        contrastive_loss(text, audio, 0.1, form=form).item(), abs=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
def test_is_finite_at_the_lowest_temperature(form):
    """exp(1 / 0.01) overflows float32; the loss and its gradient must not."""
    audio = unit(8, dtype=torch.float32).requires_grad_()
    text = (-audio).detach().requires_grad_()
    loss = contrastive_loss(audio, text, 0.01, form=form)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(audio.grad).all()
    assert torch.isfinite(text.grad).all()


def test_the_published_loss_runs_away_on_separable_pairs():
    """Its positive is not in the denominator, so it falls without limit as tau falls; InfoNCE stops at 0."""
    pairs = torch.eye(8)
    losses = [contrastive_loss(pairs, pairs, tau).item() for tau in (1.0, 0.1, 0.01)]
    assert losses == pytest.approx([math.log(14) - 1 / tau for tau in (1.0, 0.1, 0.01)], rel=1e-5)
    assert losses[2] < losses[1] < 0
    assert contrastive_loss(pairs, pairs, 0.01, form="infonce").item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [2, 512])
def test_chance_level_is_the_loss_of_a_collapsed_model(form, batch):
    audio = torch.zeros(batch, 4, dtype=torch.float64)
    assert contrastive_loss(audio, audio, 0.1, form=form).item() == pytest.approx(chance_level(batch, form), rel=1e-9)


def test_chance_level_of_the_paper():
    assert chance_level(6144) == pytest.approx(9.416, abs=5e-4)
    assert chance_level(512, "averaged") == pytest.approx(6.236, abs=5e-4)


def test_is_float32_under_autocast():
    audio, text = unit(8, dtype=torch.float32), unit(8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(audio, text, 0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(literal(audio, text, 0.05, "mulan").mean().item(), rel=1e-5)


def test_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="at least 2"):
        contrastive_loss(unit(1), unit(1), 0.1)
    with pytest.raises(ValueError, match="blocks"):
        contrastive_loss(unit(3), unit(4), 0.1)
    with pytest.raises(ValueError, match="unknown loss form"):
        contrastive_loss(unit(3), unit(3), 0.1, form="clip")
    with pytest.raises(ValueError, match="ids of shape"):
        contrastive_loss(unit(3), unit(3), 0.1, ids_b2=torch.zeros(3))


PAIRS_OF_A_WORKER = 4


def _global_ids(world):
    """Two pairs of one track on different workers, two of one text."""
    ids = torch.arange(2 * PAIRS_OF_A_WORKER * world).view(-1, 2)
    ids[-1, 0], ids[-2, 1] = ids[0, 0], ids[1, 1]
    return ids


def _worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    results = {}
    local = slice(rank * PAIRS_OF_A_WORKER, (rank + 1) * PAIRS_OF_A_WORKER)
    for form in FORMS:
        for ids in (None, _global_ids(world)[local]):
            audio = unit(PAIRS_OF_A_WORKER * world, dtype=torch.float32)[local].clone().requires_grad_()
            text = unit(PAIRS_OF_A_WORKER * world, seed=1, dtype=torch.float32)[local].clone().requires_grad_()
            tau = torch.tensor(0.1, requires_grad=True)
            loss = contrastive_loss(audio, text, tau, form=form, ids_b2=ids, chunk_rows=3, distributed=True)
            loss.backward()
            results[form, ids is None] = (loss.item(), audio.grad, text.grad, tau.grad.item())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_many_processes_equal_one(world, tmp_path):
    """Loss, gradients of the features and of the temperature; ranks' gradients averaged, as the loop does."""
    run_workers(_worker, world, tmp_path)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for form in FORMS:
        for ids in (None, _global_ids(world)):
            audio = unit(PAIRS_OF_A_WORKER * world, dtype=torch.float32).requires_grad_()
            text = unit(PAIRS_OF_A_WORKER * world, seed=1, dtype=torch.float32).requires_grad_()
            tau = torch.tensor(0.1, requires_grad=True)
            loss = contrastive_loss(audio, text, tau, form=form, ids_b2=ids)
            loss.backward()
            of_ranks = [part[form, ids is None] for part in parts]
            losses, audio_grads, text_grads, tau_grads = zip(*of_ranks, strict=True)
            assert sum(losses) / world == pytest.approx(loss.item(), abs=1e-5), form
            assert torch.allclose(torch.cat(audio_grads) / world, audio.grad, atol=1e-5), form
            assert torch.allclose(torch.cat(text_grads) / world, text.grad, atol=1e-5), form
            assert sum(tau_grads) / world == pytest.approx(tau.grad.item(), abs=1e-4 * abs(tau.grad.item())), form


def test_without_a_group_the_distributed_loss_is_the_plain_one():
    audio, text = unit(6), unit(6, seed=1)
    assert contrastive_loss(audio, text, 0.1, distributed=True) == contrastive_loss(audio, text, 0.1)


def test_never_holds_the_full_matrix():
    """The largest tensor of forward and backward is a chunk, not the square of the batch."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return result

    batch, rows = 512, 16
    audio, text = (unit(batch, seed=s, dtype=torch.float32).requires_grad_() for s in (0, 1))
    with Watch():
        contrastive_loss(audio, text, 0.1, chunk_rows=rows).backward()
    assert 0 < largest <= 4 * rows * batch
