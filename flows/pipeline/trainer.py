"""Ray Train's part of a training run: workers, failures, checkpoints."""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch

from flows.pipeline.train_worker import VALID_LOSS, train_worker
from flows.runtime.stack import need_ray
from flows.runtime.storage import Storage
from mulan_core.config import TrainConfig
from mulan_core.errors import UserError


def train_on_ray(settings: dict[str, Any], config: TrainConfig, name: str, storage: Storage, *, keep: str) -> str:
    """Train to the end, or go on with the run of this name.

    Args:
        settings: what ``train_worker`` gets.
        config: workers and failures.
        name: of the run, under which its checkpoints are kept.
        storage: where.
        keep: ``best`` or ``last``, which checkpoint counts.

    Returns:
        The checkpoint's path in the storage.

    Raises:
        UserError: what the workers said, if training failed.
    """
    need_ray()
    return str(_fit(_trainer(settings, config, name, storage, keep=keep), keep=keep).path)


def _trainer(
    settings: dict[str, Any], config: TrainConfig, name: str, storage: Storage, *, keep: str
) -> ray.train.torch.TorchTrainer:
    least, most = config.min_workers, config.num_workers
    num_workers: Any = (least, most) if least else most
    return _Trainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": 1 + config.num_loader_workers} | ({"GPU": 1} if config.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            **storage.run_options(),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute=VALID_LOSS if keep == "best" else None,
                checkpoint_score_order="min",
            ),
        ),
    )


class _Trainer(ray.train.torch.TorchTrainer):
    """Without Ray's own handler of Ctrl-C: it stays when training is over, and swallows every later one."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _fit(trainer: ray.train.torch.TorchTrainer, *, keep: str) -> ray.train.Checkpoint:
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise UserError(f"training failed: {_cause(error)}") from error
    if result.checkpoint is None:
        raise UserError("training ended without a checkpoint; see Ray's messages above")
    if keep == "best":
        kept: list[tuple[ray.train.Checkpoint, dict[str, Any]]] = result.best_checkpoints or []
        return min(kept, key=lambda pair: pair[1][VALID_LOSS])[0]
    return result.checkpoint


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    first: BaseException = next(iter(failures.values()), error)
    while getattr(first, "cause", None) or first.__cause__:
        first = getattr(first, "cause", None) or first.__cause__  # type: ignore[assignment]
    return str(first).strip().splitlines()[-1] if str(first).strip() else type(first).__name__
