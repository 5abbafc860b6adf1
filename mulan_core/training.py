"""The training loop: one function that knows nothing of Ray, MLflow or files.

What it needs comes as arguments: ``report`` takes metrics, ``save`` takes the state. A Ray worker
hands in Ray's functions, a test hands in ``list.append``.

Every random number of a step follows from (seed, step): dropout here, with the rank, and text, crop
and SpecAugment in the batches. So the state of a run is the weights, the optimiser and one integer.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mulan_core.config import TrainConfig
from mulan_core.errors import UserError
from mulan_core.losses import chance_level, distributed_contrastive_loss
from mulan_core.model import MuLanModel

if TYPE_CHECKING:  # the loop itself needs torch alone, not the shards' readers
    from mulan_core.data.batches import Batch

Report = Callable[[int, dict[str, float]], None]
Save = Callable[[int, dict[str, Any]], None]

COLLAPSE_COSINE = 0.95
"""A batch whose audio vectors have this mean pairwise cosine is called collapsed."""


def fit(
    model: MuLanModel,
    batches: Callable[[int], Iterable[Batch]],
    *,
    config: TrainConfig,
    report: Report,
    save: Save,
    state: Mapping[str, Any] | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> int:
    """Train to ``config.steps`` optimiser steps.

    Args:
        model: the towers; trained in place.
        batches: first step -> this worker's batches from there on.
        config: the run's numbers. ``batch_size`` counts pairs over all workers.
        report: called every ``log_every`` steps and at the last with (step, metrics).
        save: called every ``checkpoint_every`` steps and at the last with (steps done, state).
        state: what ``save`` was given, to go on from there.
        wrap: puts the model on its device and under data parallelism (its gradient is the workers' mean).

    Returns:
        The number of steps done.

    Raises:
        UserError: after ``max_bad_steps`` steps in a row with a non-finite loss or gradient.
    """
    optimizer = build_optimizer(model, config)
    done = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = int(state["step"])
    if config.channels_last:
        nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]
    module = wrap(model)
    device = next(model.parameters()).device
    bf16 = uses_bf16(config.precision, device)
    meter = _Meter(config)
    bad_steps = 0
    module.train()
    for batch in batches(done):
        _seed_step(config.seed, batch.step)
        _set_learning_rates(optimizer, batch.step, config)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            audio_BD, text_BD = module(
                batch.waveforms_BT.to(device),
                batch.input_ids_BL.to(device),
                batch.attention_mask_BL.to(device),
                spec_masks=batch.spec_masks_B4,
            )
        loss = distributed_contrastive_loss(audio_BD, text_BD, model.tau, form=config.loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad_norm)
        if _all_agree(bool(torch.isfinite(loss) & torch.isfinite(grad_norm)), device):
            optimizer.step()
            model.clamp_tau_()
            bad_steps = 0
        else:
            # The gradient is the same on every worker, so all of them skip together.
            bad_steps += 1
            meter.skipped += 1
            if bad_steps >= config.max_bad_steps:
                raise UserError(
                    f"training stopped at step {batch.step}: {bad_steps} steps in a row had a non-finite loss or "
                    "gradient; lower train.audio_lr, or set train.precision to fp32"
                )
        done = batch.step + 1
        meter.add(batch, loss.detach())
        if done % config.log_every == 0 or done == config.steps:
            rates = {f"lr/{group['name']}": float(group["lr"]) for group in optimizer.param_groups}
            report(done, meter.read(model, audio_BD.detach(), grad_norm) | rates)
        if done % config.checkpoint_every == 0 or done == config.steps:
            save(done, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done})
    return done


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether towers are autocast to bfloat16; ``auto`` asks the hardware, which may only emulate it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build_optimizer(model: MuLanModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW in four groups: pretrained text layers apart from the rest, each with and without decay.

    Biases, norms and the temperature (everything with fewer than two dimensions) get no weight decay.
    """
    rest: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    text: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    pretrained = {id(p) for p in model.text_tower.encoder.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            (text if id(parameter) in pretrained else rest)[parameter.ndim < 2].append(parameter)
    groups = [
        {"name": f"{name}{suffix}", "params": params, "peak": peak, "weight_decay": decay}
        for name, peak, pair in (("audio", config.audio_lr, rest), ("text", config.text_lr, text))
        for suffix, params, decay in zip(("", "_no_decay"), pair, (config.weight_decay, 0.0), strict=True)
        if params
    ]
    return torch.optim.AdamW(groups, lr=config.audio_lr)


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to ``peak``, then a cosine down to a hundredth of it at the last step.

    >>> [round(learning_rate(s, peak=1.0, warmup_steps=2, steps=10), 3) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.505, 0.048]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _set_learning_rates(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, peak=group["peak"], warmup_steps=config.warmup_steps, steps=config.steps)


def _seed_step(seed: int, step: int) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    # Large odd multipliers keep neighbouring (seed, step, rank) far apart in seed space.
    torch.manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xC2B2AE3D27D4EB4F + rank * 0x165667B19E3779F9) % 2**63)


def _all_agree(here: bool, device: torch.device) -> bool:
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return here
    flag = torch.tensor(float(here), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


class _Meter:
    """Gathers what happens between two reports and turns it into metrics and alarms."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.skipped = 0
        self._restart()

    def _restart(self) -> None:
        self._losses: list[Tensor] = []
        self._sources: Counter[str] = Counter()
        self._started = time.perf_counter()

    def add(self, batch: Batch, loss: Tensor) -> None:
        self._losses.append(loss)
        self._sources.update(batch.sources)

    def read(self, model: MuLanModel, audio_BD: Tensor, grad_norm: Tensor) -> dict[str, float]:
        loss = _mean_over_workers(torch.stack(self._losses).mean())
        tau, cosine = float(model.tau.detach()), mean_pairwise_cosine(audio_BD)
        chance = chance_level(self._config.batch_size, self._config.loss)
        draws = max(1, sum(self._sources.values()))
        metrics = {
            "loss": loss,
            "tau": tau,
            "grad_norm": float(grad_norm),
            "clips_per_s": len(self._losses) * self._config.batch_size / (time.perf_counter() - self._started),
            "mean_pairwise_cosine": cosine,
            "effective_rank": effective_rank(audio_BD),
            "alarm/at_chance": float(loss > chance - 0.02),
            "alarm/tau_at_bound": float(not model.tau_min * 1.001 < tau < 0.999),
            "alarm/collapse": float(cosine > COLLAPSE_COSINE),
            "alarm/skipped_steps": float(self.skipped),
        }
        metrics |= {f"text_share/{source}": n / draws for source, n in sorted(self._sources.items())}
        self._restart()
        return metrics


def _mean_over_workers(value: Tensor) -> float:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return float(value)


def mean_pairwise_cosine(vectors_BD: Tensor) -> float:
    """Mean cosine between different unit vectors of a batch; near 1 when the tower has collapsed."""
    count = len(vectors_BD)
    total = vectors_BD.float().sum(dim=0).square().sum()
    return float((total - count) / (count * (count - 1)))


def effective_rank(vectors_BD: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values: how many dimensions are in use."""
    if not torch.isfinite(vectors_BD).all():
        return math.nan
    values = torch.linalg.svdvals(vectors_BD.float())
    shares = values / values.sum()
    return float(torch.exp(-(shares * torch.log(shares.clamp_min(1e-12))).sum()))
