"""The training loop: one function that knows nothing of Ray, MLflow or files.

What it needs comes as arguments: the task knows model and loss, ``report`` takes metrics, ``save`` takes the
state. A Ray worker hands in Ray's functions, a test hands in ``list.append``.

Every random number of a step follows from (seed, step): dropout here, with the rank, and text, crop
and SpecAugment in the batches. So the state of a run is the weights, the optimiser and one integer.

Workers. Each computes the gradient of its share; gradients are averaged in few large messages after the
backward pass, which costs the overlap that DistributedDataParallel has and buys that a tower may run any number
of times a step (gradient caching). Everything after that is the same on all workers.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mulan_core.config import TrainConfig
from mulan_core.errors import UserError
from mulan_core.gradcache import average_over_workers
from mulan_core.tasks import Batch, Task

Report = Callable[[int, dict[str, float]], None]
Save = Callable[[int, dict[str, Any]], None]


def fit(
    task: Task,
    batches: Callable[[int], Iterable[Batch]],
    *,
    config: TrainConfig,
    report: Report,
    save: Save,
    state: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> int:
    """Train to ``config.steps`` optimiser steps.

    Args:
        task: holds the model, which is trained in place.
        batches: first step -> this worker's batches from there on.
        config: the run's numbers. ``batch_size`` counts examples over all workers.
        report: called every ``log_every`` steps and at the last with (step, metrics).
        save: called every ``checkpoint_every`` steps and at the last with (steps done, state). While it runs the
            model holds the weights to keep: their moving average, where ``ema_decay`` asks for one.
        state: what ``save`` was given, to go on from there.
        device: where to train; None stays where the model is.

    Returns:
        The number of steps done.

    Raises:
        UserError: after ``max_bad_steps`` steps in a row with a non-finite gradient.
    """
    model = task.model
    if device is not None:
        model.to(device)
    if config.channels_last:
        nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = _Trained(task, config)
    done = trained.load(state) if state is not None else 0
    _start_alike(model)
    meter = _Meter(config)
    task.train()
    for batch in batches(done):
        _seed_step(config.seed, batch.step)
        loss, grad_norm, skipped = trained.step(batch)
        meter.skipped += skipped
        done = batch.step + 1
        meter.add(batch, loss)
        if done % config.log_every == 0 or done == config.steps:
            report(done, meter.read(task, grad_norm) | trained.learning_rates())
        if done % config.checkpoint_every == 0 or done == config.steps:
            trained.save(done, save)
    return done


class _Trained:
    """The model with what a step changes beside it: the optimiser and the moving average."""

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self._task, self._config = task, config
        self._optimizer = build_optimizer(task, config)
        self._average = MovingAverage(task.model, config.ema_decay) if config.ema_decay is not None else None
        self._parameters = [p for p in task.model.parameters() if p.requires_grad]
        self._bf16 = uses_bf16(config.precision, self._parameters[0].device)
        self._bad_steps = 0

    def load(self, state: Mapping[str, Any]) -> int:
        """Go on from what ``save`` was given; returns the number of steps done."""
        self._task.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load(state["average"])
        return int(state["step"])

    def step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """One step; returns loss, norm of the gradient, and whether it was skipped for not being finite.

        Raises:
            UserError: after ``max_bad_steps`` skipped ones in a row.
        """
        _set_learning_rates(self._optimizer, batch.step, self._config)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._task.forward_backward(batch, bf16=self._bf16)
        average_over_workers([p.grad for p in self._parameters if p.grad is not None])
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self._config.clip_grad_norm)
        # The gradient is the same on every worker by now, so all of them skip together.
        if torch.isfinite(grad_norm):
            self._optimizer.step()
            self._task.after_step()
            self._bad_steps = 0
            if self._average is not None:
                self._average.update()
            return loss, grad_norm, False
        self._bad_steps += 1
        if self._bad_steps >= self._config.max_bad_steps:
            raise UserError(
                f"training stopped at step {batch.step}: {self._bad_steps} steps in a row had a non-finite loss or "
                "gradient; lower train.audio_lr, or set train.precision to fp32"
            )
        return loss, grad_norm, True

    def learning_rates(self) -> dict[str, float]:
        """Of each group, as metrics."""
        return {f"lr/{group['name']}": float(group["lr"]) for group in self._optimizer.param_groups}

    def save(self, done: int, save: Save) -> None:
        """Hand over the state, with the weights to keep in the model meanwhile."""
        kept = {"model": self._task.model.state_dict(), "optimizer": self._optimizer.state_dict(), "step": done}
        if self._average is None:
            save(done, kept)
        else:
            with self._average.applied():
                save(done, kept | {"average": self._average.state()})


class MovingAverage:
    """An exponential moving average of the trainable weights; everything else is the model's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move by one step."""
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        """Name -> average."""
        return self._average

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average."""
        for name, value in self._average.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model hold the average for a while; a state dict taken before still holds the weights."""
        live = {name: p.data for name, p in self._live.items()}
        try:
            for name, p in self._live.items():
                p.data = self._average[name]
            yield
        finally:
            for name, p in self._live.items():
                p.data = live[name]


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether towers are autocast to bfloat16; ``auto`` asks the hardware, which may only emulate it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build_optimizer(task: Task, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a group for each of the task's rates, in two parts: with and without weight decay.

    Biases, norms and the temperature (everything with fewer than two dimensions) get no weight decay.
    """
    groups = [
        {"name": f"{name}{suffix}", "params": params, "peak": peak, "weight_decay": decay}
        for name, (peak, parameters) in task.rates().items()
        for suffix, decay, params in (
            ("", config.weight_decay, [p for p in parameters if p.ndim >= 2]),
            ("_no_decay", 0.0, [p for p in parameters if p.ndim < 2]),
        )
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


@torch.no_grad()
def _start_alike(model: nn.Module) -> None:
    """Give every worker the weights of the first; after that equal gradients keep them equal."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor, src=0)


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

    def read(self, task: Task, grad_norm: Tensor) -> dict[str, float]:
        loss = torch.stack(self._losses).mean()
        average_over_workers([loss])
        metrics = {
            "loss": float(loss),
            "grad_norm": float(grad_norm),
            "clips_per_s": len(self._losses) * self._config.batch_size / (time.perf_counter() - self._started),
            "alarm/skipped_steps": float(self.skipped),
        } | task.metrics(float(loss))
        draws = max(1, sum(self._sources.values()))
        metrics |= {f"text_share/{source}": n / draws for source, n in sorted(self._sources.items())}
        self._restart()
        return metrics
