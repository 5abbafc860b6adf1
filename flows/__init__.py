"""Prefect flows and the command line: thin; they call steps, and steps call Ray, MLflow and DVC."""
