"""The stages, one file each: the step and its Prefect flow."""
