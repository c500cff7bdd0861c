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
    """Judge the variants of a fold's model; int8 is served where it is as good as fp32.

    It must call and rank the held-out wells alike, and keep Z' and V of wells that the model was
    trained on: to choose it by Z' and V of held-out wells would flatter what is reported of them.
    """
    held = judge.held_out(tiles, model.fold)
    judged: dict[str, Judged] = {}
    measures: dict[str, Mapping[str, Any]] = {}
    refused = "" if INT8 in model.variants else "the model has none"
    for variant in model.variants:
        try:
            judged[variant] = _answers(tiles, model, variant, held, "held out")
        except StageError as error:
            if variant != INT8:
                raise
            refused = str(error)
            continue
        measures[variant] = judge.measure(judged[variant], seed)
    if INT8 in judged:
        if changed := judge.changed_calls(judged[FP32], judged[INT8]):
            refused = f"it calls {', '.join(changed)} otherwise"
        elif not judge.close_enough(measures[FP32], measures[INT8]):
            refused = "its AUC differs by more than 0.005"
        elif seen := judge.trained_on(tiles, model.fold):
            one, other = (_answers(tiles, model, v, seen, "trained on") for v in (FP32, INT8))
            if worse := judge.worse_factors(one, other):
                refused = f"on wells it was trained on it has {', '.join(worse)}"
    served = FP32 if refused else INT8
    return Verdict(model, served, judged[served], measures, refused)


def _answers(
    tiles: Tiles, model: Model, variant: str, wells: Mapping[str, list[int]], what: str
) -> Judged:
    """Return what a variant says of `wells`, the rows of each; raises StageError where it fails."""
    rows = [row for of_well in wells.values() for row in of_well]

    def progress(done: int) -> None:
        if done == len(rows) or done % 200 == 0:
            print(f"{model.fold} {variant}, {what}: {done} of {len(rows)} tiles", flush=True)

    probability = probabilities(model.variants[variant], tiles, rows, progress)
    return judge.judged(tiles, model.fold, wells, probability)
