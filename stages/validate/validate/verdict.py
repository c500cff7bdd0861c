"""A fold's verdict: which variant of its model is served, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import StageError
from common.inference import probabilities
from common.tiles import Tiles

from . import judge
from .judge import Judged
from .models import FP32, INT8, Model


@dataclass(frozen=True)
class Verdict:
    """A fold's model, the variant that is served, and what each variant that runs is worth.

    `refused` says why int8 is not served, or is empty.
    """

    model: Model
    variant: str
    judged: Judged
    measures: Mapping[str, Mapping[str, Any]]
    refused: str

    @property
    def served(self) -> Mapping[str, Any]:
        """The measures of the variant that is served."""
        return self.measures[self.variant]


def judge_fold(tiles: Tiles, model: Model, seed: int) -> Verdict:
    """Judge the variants of a fold's model; int8 is served where it calls and ranks like fp32."""
    wells = judge.held_out(tiles, model.fold)
    rows = [row for of_well in wells.values() for row in of_well]
    judged: dict[str, Judged] = {}
    measures: dict[str, Mapping[str, Any]] = {}
    refused = "" if INT8 in model.variants else "the model has none"
    for variant, path in model.variants.items():

        def progress(done: int, variant: str = variant) -> None:
            if done == len(rows) or done % 200 == 0:
                print(f"{model.fold} {variant}: {done} of {len(rows)} tiles", flush=True)

        try:
            probability = probabilities(path, tiles, rows, progress)
        except StageError as error:
            if variant != INT8:
                raise
            refused = str(error)
            continue
        judged[variant] = judge.judged(tiles, model.fold, wells, probability)
        measures[variant] = judge.measure(judged[variant], seed)
    if INT8 in judged:
        if changed := judge.changed_calls(judged[FP32], judged[INT8]):
            refused = f"it calls {', '.join(changed)} otherwise"
        elif not judge.close_enough(measures[FP32], measures[INT8]):
            refused = "its AUC differs by more than 0.005"
    served = FP32 if refused else INT8
    return Verdict(model, served, judged[served], measures, refused)
