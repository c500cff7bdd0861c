"""The pipelines that can be compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.definition.settings import Settings
from pipeline.definition.stages import MODEL, PLATES, SCORE, images_of
from pipeline.spec.compile import Definition


def definition(settings: Settings, name: str = MODEL) -> Definition:
    """Return the pipeline of that name with `settings`; kfp is imported when it is built."""

    def build(pins: Mapping[str, str]) -> Callable[..., Any]:
        from pipeline.definition import plate_to_model, plates_to_hits, plates_to_model

        modules: Any = {MODEL: plate_to_model, PLATES: plates_to_model, SCORE: plates_to_hits}
        module = modules[name]
        made: Callable[..., Any] = module.build(pins, settings)
        return made

    options = {**asdict(settings), "pipeline": name}
    return Definition(images_of(name, settings.gpus), options, Path(__file__).parent, build)
