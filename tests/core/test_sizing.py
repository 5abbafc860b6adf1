"""The plan: parameters and bytes are those of real models and real processes; mistakes are told."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from model_fixtures import SMALL_RESNET, TINY_TEXT, model_config, run_workers, tiny_model

from mulan_core import sizing
from mulan_core.config import Config, TrainConfig, load_config
from mulan_core.errors import UserError
from mulan_core.gradcache import average_over_workers
from mulan_core.losses import contrastive_loss
from mulan_core.sizing import ACCELERATORS, communicate, count, plan

PAIRS, DIM, WEIGHTS = 32, 128, 5_000


def sent_by_a_ring(workers, num_bytes, *, passes):
    """Bytes that each worker sends when a tensor goes round in W pieces, W - 1 of them by each, ``passes`` times."""
    sent = [0.0] * workers
    for _ in range(passes):
        for _ in range(workers - 1):
            for rank in range(workers):
                sent[rank] += num_bytes / workers
    assert len(set(sent)) == 1
    return sent[0]


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
def test_bytes_are_those_of_rings(workers):
    found = communicate(workers, 6144, 128, 10**6, ACCELERATORS["h100"])
    vectors = 6144 * 128 * 4
    assert found.gather_bytes == pytest.approx(sent_by_a_ring(workers, vectors, passes=1))
    assert found.scatter_bytes == pytest.approx(sent_by_a_ring(workers, vectors, passes=1))
    assert found.reduce_bytes == pytest.approx(sent_by_a_ring(workers, 4 * 10**6, passes=2))


def _worker(rank, world, folder):
    """One loss with its gradient, and the average of some weights' gradients, with every collective's bytes counted."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    sent = {"all_gather_into_tensor": 0.0, "reduce_scatter_tensor": 0.0, "all_reduce": 0.0}

    def counted(name, bytes_of):
        collective = getattr(dist, name)

        def call(*tensors, **options):
            sent[name] += bytes_of(*tensors)
            return collective(*tensors, **options)

        setattr(dist, name, call)

    counted("all_gather_into_tensor", lambda out, local: (world - 1) * local.nbytes)
    counted("reduce_scatter_tensor", lambda local, rows: (world - 1) * local.nbytes)
    counted("all_reduce", lambda tensor, *_: 2 * (world - 1) / world * tensor.nbytes)
    share = PAIRS // world
    audio, text = (torch.nn.functional.normalize(torch.randn(share, DIM), dim=-1).requires_grad_() for _ in range(2))
    contrastive_loss(audio, text, torch.tensor(0.1), distributed=True).backward()
    average_over_workers([torch.ones(WEIGHTS)])
    torch.save(sent, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_real_workers_send_what_the_simulation_says(world, tmp_path):
    run_workers(_worker, world, tmp_path)
    said = communicate(world, PAIRS, DIM, WEIGHTS, ACCELERATORS["h100"])
    for rank in range(world):
        sent = torch.load(tmp_path / f"{rank}.pt")
        # The loss also gathers a few numbers a pair, beside the 128 of a vector.
        assert sent["all_gather_into_tensor"] == pytest.approx(said.gather_bytes, rel=0.06)
        assert sent["reduce_scatter_tensor"] == pytest.approx(said.scatter_bytes, rel=0.02)
        assert sent["all_reduce"] == pytest.approx(said.reduce_bytes, rel=0.02)


def test_parameters_are_those_of_the_model(monkeypatch):
    monkeypatch.setattr("transformers.BertConfig", lambda: TINY_TEXT)
    parameters, audio, text = count(Config(model=model_config(SMALL_RESNET)))
    assert parameters == sum(p.numel() for p in tiny_model().parameters() if p.requires_grad)
    longer, same = (count(Config(model=model_config(SMALL_RESNET, window_s=s)))[1] for s in (4.0, 2.0))
    assert same == audio and longer / audio == pytest.approx(2, rel=0.1) and text > 0


def test_the_papers_run_by_hand():
    config = load_config("configs/resnet50.yaml")
    found = plan(config, tracks=44_000_000, workers=64, accelerator=ACCELERATORS["h100"])
    assert (found.steps, found.pairs_of_a_worker) == (100_261, 96)
    # ResNet-50 has 4.1 G multiply-adds on 224 x 224; a log-mel of 64 x 1000 has 1.275 times the pixels.
    assert count(config)[1] == pytest.approx(2 * 4.1e9 * 64_000 / 224**2, rel=0.1)
    assert found.flops_of_a_step == pytest.approx(4 * 6144 * sum(count(config)[1:]))
    assert found.communication_share < 0.1
    assert found.hours == pytest.approx(found.steps * found.step_s / 3600)
    assert found.shards_bytes == pytest.approx(44e6 * 30 * 16_000 * 2 * 0.72)


def test_the_demos_shards_have_the_size_that_is_planned():
    """199,294,205 bytes on disk for its 720 clips of 12 s."""
    clips = 720 * 12 * 16_000 * 2
    assert clips * sizing.FLAC_SHARE == pytest.approx(199_294_205, rel=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 50}, "take 48 or 64"),
        ({"workers": 0}, "at least one track, one GPU"),
        ({"tracks": 0}, "at least one track, one GPU"),
        ({"utilisation": 1.5}, "above 0 and at most 1"),
    ],
)
def test_what_cannot_be_planned_is_told(options, sentence):
    config = replace(Config(model=model_config(SMALL_RESNET)), train=TrainConfig(batch_size=6144, num_workers=1))
    with pytest.raises(UserError, match=sentence):
        plan(config, **({"tracks": 1000, "workers": 8, "accelerator": ACCELERATORS["a100"]} | options))
