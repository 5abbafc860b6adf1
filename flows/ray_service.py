"""The endpoint where no flow deploys it: Ray Serve's own configuration file, such as a RayService's, names this."""

from __future__ import annotations

from typing import Any

from ray import serve

from flows.registry import Registry
from flows.runtime.catalogues import MODEL_NAME, Catalogue, read_records
from flows.runtime.settings import read_settings
from flows.runtime.storage import open_edits
from mulan_core.config import ServeConfig, from_mapping
from mulan_core.errors import UserError
from serving.deployment import build_app
from serving.keys import KeyFile, check_exposed


def app_from_environment(args: dict[str, Any]) -> serve.Application:
    """The application of the champion release.

    Args:
        args: fields of ``ServeConfig`` that differ from their defaults. The address is the file's own, not ours, so
            others are taken to reach it: there must be keys, or ``allow_open``. And ``model``, the registered model of
            a catalogue of your own; the demo's without it.

    The settings are those of every flow; MULAN_MILVUS_URI must be one of them, and MLFLOW_TRACKING_URI where the
    registry is not the home's. What is added over the API is kept in the home, which all nodes must share then, or in
    the bucket that MULAN_CHECKPOINTS names.

    Raises:
        UserError: if an address is missing, there are no keys, or no champion can be served.
    """
    args = dict(args)
    model = str(args.pop("model", MODEL_NAME))
    config = from_mapping(ServeConfig, {"host": "0.0.0.0"} | args)  # noqa: S104 - said of Serve's proxy, not bound here
    settings = read_settings()
    matches = (record for record in read_records(settings.home).by_name.values() if record.model == model)
    catalogue = next(matches, Catalogue("served", model=model))
    if settings.milvus_uri is None:
        raise UserError("set MULAN_MILVUS_URI to serve the champion release")
    check_exposed(config.host, KeyFile(settings.keys_file), allow_open=config.allow_open)
    return build_app(
        Registry.of(settings, catalogue).release().to_dict(),
        config,
        milvus_uri=settings.milvus_uri,
        milvus_token=settings.milvus_token,
        edits=open_edits(settings, catalogue).location,
        keys_file=settings.keys_file,
        log_folder=catalogue.query_log(settings.home),
        catalogue=catalogue.name,
    )
