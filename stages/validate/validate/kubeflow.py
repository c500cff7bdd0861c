"""The judgement in the formats that Kubeflow Pipelines shows.

Metrics are flat numbers. ClassificationMetrics (google/schemas of kubeflow/pipelines,
classification_metrics.yaml) hold confusionMatrix and confidenceMetrics, the ROC curve's points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .measures import roc
from .verdict import Verdict


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json as `fold what` -> number; what is not known is left out.

    EC50 is in the series' own unit.
    """
    found: dict[str, float | None] = {}
    for fold, model in metrics["models"].items():
        for level in ("well", "tile"):
            for name in ("accuracy", "weighted_f1", "auc", "brier", "calibration_error"):
                found[f"{fold} {level} {name}"] = model[level][name]
        found[f"{fold} z_factor"] = model["z_factor"]["probability"]
        found[f"{fold} z_factor log_odds"] = model["z_factor"]["log_odds"]
        for series in model["series"]:
            name = f"{fold} {series['compound']}"
            found[f"{name} v_factor"] = series["v_factor"]["probability"]
            found[f"{name} v_factor log_odds"] = series["v_factor"]["log_odds"]
            found[f"{name} ec50 {series['unit']}".rstrip()] = series["fit"]["probability"]["ec50"]
    return {name: float(value) for name, value in found.items() if value is not None}


def classification(verdicts: Mapping[str, Verdict], classes: Sequence[str]) -> dict[str, Any]:
    """Return a ClassificationMetrics artifact's metadata, over the labelled wells of all folds.

    Each well was judged once, by the model that did not see it.
    """
    wells = [
        (float(label), verdict.judged.score(well))
        for verdict in verdicts.values()
        for well, label in verdict.judged.labels.items()
    ]
    labels, scores = (np.array(column) for column in zip(*wells, strict=True))
    counts = np.sum([v.served["well"]["confusion"] for v in verdicts.values()], axis=0)
    return {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": name} for name in classes],
            "rows": [{"row": row} for row in counts.tolist()],
        },
        "confidenceMetrics": [
            {"confidenceThreshold": threshold, "recall": recall, "falsePositiveRate": rate}
            for threshold, recall, rate in roc(labels, scores)
        ],
    }
