"""The newest numbers of a training run for Prometheus, through Ray's own metrics port on every node."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge


class TrainingGauges:
    """One gauge a metric: ``ray_mulan_train_loss``, ``ray_mulan_train_alarm_collapse``, ...; MLflow keeps the history.

    Args:
        run: the label ``run`` of each.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def set(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers of a step."""
        for name, value in {"step": step, **values}.items():
            if name not in self._gauges:
                plain = name.replace("/", "_")
                self._gauges[name] = Gauge(f"mulan_train_{plain}", f"{name} of the training run", tag_keys=("run",))
            self._gauges[name].set(value, tags={"run": self._run})
