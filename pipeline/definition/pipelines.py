"""The pipelines that can be compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.definition.settings import Settings
from pipeline.definition.stages import TARGETS
from pipeline.spec.compile import Definition


def definition(settings: Settings) -> Definition:
    """Return the pipeline with `settings`; kfp is imported when it is built."""

    def build(pins: Mapping[str, str]) -> Callable[..., Any]:
        from pipeline.definition import plate_to_model

        return plate_to_model.build(pins, settings)

    return Definition(TARGETS, asdict(settings), Path(__file__).parent, build)
