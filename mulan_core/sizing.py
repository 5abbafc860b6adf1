"""Sizing a run before it is paid for: storage, steps, arithmetic, communication, memory, hours.

Pure formulas over a configuration, explained in docs/scaling.md. What was measured by this project, what a maker
publishes and what is an estimate is said at each constant; nothing here has been measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mulan_core.config import Config
from mulan_core.errors import UserError

EPOCHS = 14
"""Passes over the catalogue (paper, section 4.1)."""
FLAC_SHARE = 0.72
"""Bytes of a shard over those of its clips as 16-bit samples. Measured: the demo's 720 clips of 12 s take 199.3 MB."""
TEXT_TOKENS = 12
"""Tokens of a text, padding included; the mean of the paper's Table 2 after filtering is 4 to 11."""
FLOAT = 4
"""Bytes; gradients, vectors and optimiser are float32."""
HNSW_LINKS = 16
"""M of the index: twice as many links of 4 bytes a vector on the lowest layer."""
DISK_BESIDE, MEMORY_BESIDE = 1e9, 6e9
"""Bytes that a small catalogue takes beside its clips, models and services included; `mulan doctor` asks for them."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU in a node of eight."""

    name: str
    flops: float
    """Dense bfloat16 operations a second (maker's data sheet)."""
    memory_gb: float
    inside: float
    """Bytes a second to the other GPUs of a node, one way (data sheet)."""
    outside: float
    """Bytes a second to other nodes, one network card a GPU (400, 200 and 100 Gbit/s)."""
    per_node: int = 8


ACCELERATORS = {
    "h100": Accelerator("H100 SXM", 989e12, 80, 450e9, 50e9),
    "a100": Accelerator("A100 SXM 80 GB", 312e12, 80, 300e9, 25e9),
    "l4": Accelerator("L4", 121e12, 24, 32e9, 12.5e9),
}
UTILISATION = {"resnet": 0.08, "short_chunk": 0.08, "ast": 0.35}
"""Share of the peak that a step reaches. Estimates: convolutions are bound by memory traffic (public figures
for a ResNet-50 on ImageNet are 2,500 to 3,000 pictures a second and H100), transformers are not."""


@dataclass(frozen=True)
class Communication:
    """What one worker sends in one step, and how long it takes; nothing of it overlaps with the step's arithmetic."""

    workers: int
    gather_bytes: float
    """Vectors of texts to every other worker."""
    scatter_bytes: float
    """Their gradients back."""
    reduce_bytes: float
    """Gradients of the weights, averaged."""
    seconds: float

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.gather_bytes + self.scatter_bytes + self.reduce_bytes


@dataclass(frozen=True)
class Plan:
    """What a training run over a catalogue takes."""

    tracks: int
    workers: int
    accelerator: str
    steps: int
    pairs_of_a_worker: int
    parameters: int
    flops_of_a_step: float
    """Over all workers; gradient caching's second forward pass counts."""
    step_s: float
    communication: Communication
    hours: float
    gpu_hours: float
    shards_bytes: float
    num_shards: int
    lanes_of_a_worker: float
    """Below one, or not whole: workers share lanes, and each reads more than its own."""
    reading_bytes_s: float
    """A worker's share of the clips it reads, a second."""
    checkpoint_bytes: float
    worker_state_bytes: float
    """Weights, gradients and AdamW's two averages on each GPU; activations come on top."""
    index_bytes: float
    """Memory of the vectors in Milvus, HNSW's links included."""

    @property
    def communication_share(self) -> float:
        """Of a step's time."""
        return self.communication.seconds / self.step_s


def count(config: Config) -> tuple[int, float, float]:
    """Parameters, and operations of one forward pass of an audio window and of a text, counted on the real towers.

    Nothing is computed: the towers lie on torch's meta device. A text tower that comes from a checkpoint is counted as
    BERT-base, which needs no download.
    """
    import torch  # here: the other formulas serve commands that must answer at once
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig

    from mulan_core.model import MuLanModel

    towers = replace(config.model, audio=replace(config.model.audio, pretrained=None))
    with torch.device("meta"):
        model = MuLanModel.from_config(towers, text_config=BertConfig())
        frontend = config.model.frontend
        audio = FlopCounterMode(display=False)
        with audio, torch.no_grad():  # the log-mel before it is a thousandth of this
            model.audio_tower(torch.zeros(1, frontend.num_mels, frontend.num_frames))
        text = FlopCounterMode(display=False)
        with text, torch.no_grad():
            tokens = torch.ones(1, TEXT_TOKENS, dtype=torch.long)
            model.text_tower.encoder(input_ids=tokens)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return parameters, audio.get_total_flops(), text.get_total_flops()


def bytes_of_clips(config: Config, seconds: float) -> float:
    """Bytes that so many seconds of clips take in shards."""
    return seconds * config.prepare.sample_rate_hz * 2 * FLAC_SHARE


def disk_of_catalogue(config: Config, seconds: float) -> float:
    """Bytes that prepare adds for so many seconds of new clips: shards, their copy in DVC's remote, one in the making.

    DVC's cache takes nothing, since its files are links to the shards.
    """
    return 2 * bytes_of_clips(config, seconds) + config.prepare.shard_mb * 1e6


def memory_of_clips(config: Config, seconds: float) -> float:
    """Bytes of decoded clips that the workers of this machine hold: all of them, or as many as they may."""
    decoded = seconds * config.prepare.sample_rate_hz * FLOAT
    return min(decoded, config.train.num_workers * config.train.decoded_cache_mb * 1e6)


def communicate(workers: int, batch: int, dim: int, parameters: int, accelerator: Accelerator) -> Communication:
    """One step of ``workers`` processes: what each sends (rings), and its time.

    A ring's all-gather or reduce-scatter of a tensor of S bytes sends (W - 1) / W of it, an all-reduce twice that. The
    slowest link sets the pace: within a node that between its GPUs; beyond, the eight network cards of a node work side
    by side, each for a ring of its own, so a GPU's traffic leaves through all of them.
    """
    share = (workers - 1) / workers
    # A worker holds its own clips against all texts, so texts alone are gathered, and their gradients scattered back.
    gather = scatter = share * batch * dim * FLOAT
    reduce = 2 * share * parameters * FLOAT
    cards = min(workers, accelerator.per_node)
    pace = (
        accelerator.inside if workers <= accelerator.per_node else min(accelerator.inside, cards * accelerator.outside)
    )
    return Communication(workers, gather, scatter, reduce, (gather + scatter + reduce) / pace)


def _check_sizes(batch: int, tracks: int, workers: int, epochs: float) -> None:
    if tracks < 1 or workers < 1 or epochs <= 0:
        raise UserError(
            f"a plan needs at least one track, one GPU and some of an epoch, not {tracks}, {workers}, {epochs}"
        )
    if batch % workers or batch // workers < 2:
        fitting = [w for w in range(1, batch // 2 + 1) if batch % w == 0]
        near = sorted(fitting, key=lambda w: abs(w - workers))[:2]
        raise UserError(
            f"a batch of {batch} does not divide by {workers} GPUs into two pairs or more; "
            f"take {' or '.join(map(str, sorted(near)))}"
        )


def plan(
    config: Config,
    *,
    tracks: int,
    workers: int,
    accelerator: Accelerator,
    utilisation: float | None = None,
    epochs: float = EPOCHS,
) -> Plan:
    """Size a run.

    Args:
        config: towers, batch, clip length.
        tracks: clips of the training split.
        workers: GPUs.
        accelerator: their kind.
        utilisation: share of its peak that a step reaches; None takes the estimate for the tower.
        epochs: passes over the catalogue.

    Raises:
        UserError: if the batch does not divide by the workers, or a number makes no sense.
    """
    batch = config.train.batch_size
    _check_sizes(batch, tracks, workers, epochs)
    parameters, audio, text = count(config)
    passes = 4 if config.train.gradient_caching else 3  # backward is two forwards; caching has one forward more
    flops = passes * batch * (audio + text)
    share = UTILISATION[config.model.audio.kind] if utilisation is None else utilisation
    if not 0 < share <= 1:
        raise UserError(f"utilisation is {share}; give a share of the peak, above 0 and at most 1")
    communication = communicate(workers, batch, config.model.embedding_dim, parameters, accelerator)
    step_s = flops / workers / (share * accelerator.flops) + communication.seconds
    steps = math.ceil(epochs * tracks / batch)
    clip_bytes = bytes_of_clips(config, config.prepare.clip_s)
    vector_bytes = config.model.embedding_dim * FLOAT
    return Plan(
        tracks=tracks,
        workers=workers,
        accelerator=accelerator.name,
        steps=steps,
        pairs_of_a_worker=batch // workers,
        parameters=parameters,
        flops_of_a_step=flops,
        step_s=step_s,
        communication=communication,
        hours=steps * step_s / 3600,
        gpu_hours=workers * steps * step_s / 3600,
        shards_bytes=tracks * clip_bytes,
        num_shards=math.ceil(tracks * clip_bytes / (config.prepare.shard_mb * 1e6)),
        lanes_of_a_worker=config.train.num_lanes / workers,
        reading_bytes_s=batch / workers * clip_bytes / step_s,
        checkpoint_bytes=3 * parameters * FLOAT,
        worker_state_bytes=4 * parameters * FLOAT,
        index_bytes=tracks * (vector_bytes + 2 * HNSW_LINKS * 4),
    )
