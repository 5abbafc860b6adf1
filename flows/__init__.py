"""Prefect flows and the command line: thin; they call steps, and steps call Ray, MLflow and DVC."""

from serving.loopback import keep_loopback_direct

keep_loopback_direct()  # here, since a flow may be started by the command, by Prefect or from Python
