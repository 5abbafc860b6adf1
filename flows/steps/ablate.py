"""The ablation over text sources: one Ray Tune trial a row, each a Ray Train run with the same budget.

Tune runs a function that builds the trainer (Train V2 no longer accepts a trainer as a trainable), and
the inner run reports back to it. The rows are those of the paper's Table 4(b).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mulan_core.config import SOURCES, Config, from_mapping, to_mapping
from mulan_core.errors import UserError

ROWS: dict[str, tuple[str, ...]] = {
    "aset": ("aset",),
    "aset+sf": ("aset", "sf"),
    "aset+sf+lf": ("aset", "sf", "lf"),
    "all": SOURCES,
    "unfiltered": SOURCES,
}
"""Row -> the text sources it trains on; ``unfiltered`` also draws what the SF and LF filters dropped."""


def check_rows(rows: Iterable[str]) -> None:
    """Refuse rows that are not in the table.

    Raises:
        UserError: for the first of them.
    """
    for row in rows:
        if row not in ROWS:
            raise UserError(f"there is no ablation row {row!r}; the rows are {', '.join(ROWS)}")


def row_config(config: Config, row: str) -> Config:
    """The numbers of one row: only the text sources and the filters differ from row to row.

    Raises:
        UserError: for a row that is not in the table.
    """
    check_rows([row])
    weights = {source: config.train.source_weights.get(source, 0.0) for source in ROWS[row]}
    train = replace(
        config.train,
        source_weights=weights,
        use_filtered_text=row != "unfiltered",
        steps=config.ablate.steps,
        checkpoint_every=config.ablate.steps,
    )
    return replace(config, train=train)


def run_rows(
    config: Config,
    rows: list[str],
    prepared: Path,
    *,
    data_hash: str,
    mlflow_uri: str,
    storage: Path,
    parent_run_id: str,
) -> list[dict[str, Any]]:
    """Train every row with Ray Tune, one after another; a row that is done already is not trained again.

    Returns:
        For each row its name, MLflow run and model folder, in the order asked for.

    Raises:
        UserError: if a row fails.
    """
    import ray.tune

    tuner = ray.tune.Tuner(
        ray.tune.with_resources(_trial, {"CPU": 1}),
        param_space={
            "row": ray.tune.grid_search(rows),
            "config": to_mapping(config),
            "prepared": str(prepared),
            "data_hash": data_hash,
            "mlflow_uri": mlflow_uri,
            "storage": str(storage),
            "parent_run_id": parent_run_id,
        },
        # One row at a time: two at once would share the cores and neither would finish sooner.
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=1),
        run_config=ray.tune.RunConfig(name=f"ablate-{parent_run_id[:12]}", storage_path=str(storage), verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise UserError(f"an ablation row failed: {str(results.errors[0]).strip().splitlines()[-1]}")
    table = results.get_dataframe().set_index("row")
    return [{"row": row, "run_id": table.run_id[row], "model": Path(table.model[row])} for row in rows]


def _trial(space: dict[str, Any]) -> None:
    """One row as Tune sees it: train, then report where the model is."""
    import ray.tune
    from ray.tune.integration.ray_train import TuneReportCallback

    from flows.steps.train import train

    config = row_config(from_mapping(Config, space["config"]), space["row"])
    trained = train(
        config,
        Path(space["prepared"]),
        data_hash=space["data_hash"],
        mlflow_uri=space["mlflow_uri"],
        storage=Path(space["storage"]),
        name=f"ablate-{space['row']}",
        tags={"mlflow.parentRunId": space["parent_run_id"], "mulan.ablation_row": space["row"]},
        callbacks=[TuneReportCallback()],
    )
    ray.tune.report({"row": space["row"], "run_id": trained.run_id, "model": str(trained.model)})
