"""A step without its row, and a row without its stage, are named with the line to write."""

from __future__ import annotations

import pytest

from pipeline.definition import stages
from pipeline.errors import PipelineError


def test_a_step_without_a_row_is_named_with_the_row_to_add() -> None:
    with pytest.raises(
        PipelineError, match=r"'segment' has no row in STAGES of .*stages\.py"
    ) as said:
        stages.row("segment")
    assert '"segment": Stage("segment", "segment", ' in str(said.value)


def test_a_row_without_a_stage_is_named_with_the_recipe_that_lacks() -> None:
    known = set(stages.TARGETS) - {"train"}
    with pytest.raises(
        PipelineError, match=r"the row 'train' .* no stages/train/Dockerfile"
    ) as said:
        stages.targets(known)
    assert "invoke new-stage train" in str(said.value)


def test_a_row_whose_variant_is_not_there_is_named_with_the_file_that_lacks() -> None:
    known = {*stages.TARGETS, "train-cuda12"}
    with pytest.raises(PipelineError, match=r"no stages/validate/requirements\.cuda12\.in"):
        stages.targets(known, gpus=1)


def test_gpus_are_refused_where_no_step_computes_on_one() -> None:
    with pytest.raises(PipelineError, match="no step of plateline-score computes on a GPU"):
        stages.images_of(stages.SCORE, 1)


def test_the_rows_of_this_pipeline_all_have_a_stage() -> None:
    assert stages.targets(stages.TARGETS) == stages.TARGETS
