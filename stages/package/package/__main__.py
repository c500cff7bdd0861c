"""The entry point that KFP runs."""

from common.stage_io import run_stage

from .stage import package_models

run_stage("package", package_models)
