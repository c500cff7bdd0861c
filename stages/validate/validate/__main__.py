"""Runs the validate stage."""

from common.stage_io import run_stage

from .stage import validate

run_stage("validate", validate)
