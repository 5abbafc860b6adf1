#!/usr/bin/env bash
# Ray Train: after `fit()` has returned, Ctrl-C still goes to the trainer's handler.
#
# Guess:  `fit()` handles SIGINT while it trains, so that a run is aborted in order, and puts the handler of before back
#         when it returns.
# Seen:   the handler stays. A Ctrl-C minutes later, in whatever the program does then, raises no KeyboardInterrupt and
#         ends nothing, nor does the second: the handler asks the finished controller to abort. Only the third one
#         ends the program, by SystemExit(0), as if all had gone well.
# With:   ray 2.60.0 (Ray Train V2, its default), Python 3.11 (30 November 2026)
# Ours:   flows/pipeline/train.py trains without that handler; flows/runtime/ending.py ends commands below all handlers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "ray[train]==2.60.0"
cat >train.py <<'PYTHON'
import os
import signal
import time

import ray
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # what TorchTrainer is made of; needs no torch


def handler():
    return getattr(signal.getsignal(signal.SIGINT), "__qualname__", "none")


def press():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    except SystemExit as error:
        return f"SystemExit({error.code})"
    return "nothing"


if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    before = handler()
    trainer = DataParallelTrainer(
        lambda: ray.train.report({"loss": 0.0}),
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(storage_path=os.path.abspath("results")),
    )
    trainer.fit()
    print(f"handler before fit(): {before}; after it: {handler()}")
    pressed = [press(), press(), press()]
    print(f"three times Ctrl-C afterwards raises: {pressed}")
    ray.shutdown()
    seen = before == "default_int_handler" and "sigint_handler" in handler() and pressed[:2] == ["nothing", "nothing"]
    os._exit(0 if seen else 1)
PYTHON
RAY_USAGE_STATS_ENABLED=0 venv/bin/python train.py 2>"$work/stderr" || { tail -20 "$work/stderr"; exit 1; }
