"""The steps of the pipeline: each one's image, module, resources, time limit and retries.

A new stage is declared here, and gets its inputs, outputs and place in plate_to_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.spec.retries import Retries


@dataclass(frozen=True, slots=True)
class Stage:
    """A step: the target whose image runs `python3 -m module`.

    `cpu` and `memory` are request and limit, as Kubernetes writes them, `seconds` is the time limit
    of one try, pull of the image included, and `retries` how often it is tried again.
    """

    image: str
    module: str
    cpu: tuple[str, str]
    memory: tuple[str, str]
    seconds: int
    retries: int = 0

    def retry(self) -> Retries:
        """Return retries 5 s apart and doubling, whose window lets the last one begin."""
        plan = Retries(self.retries, pause=5, factor=2)
        return Retries(plan.count, plan.pause, plan.factor, plan.needs(self.seconds))


_HOUR = 3600
_SMALL = (("100m", "1"), ("256Mi", "512Mi"), 600)  # the launcher alone takes 103 MB

STAGES = {
    "scan": Stage("prepare", "prepare.scan", ("100m", "1"), ("256Mi", "512Mi"), _HOUR, retries=1),
    "prepare": Stage("prepare", "prepare", ("2", "4"), ("4Gi", "8Gi"), _HOUR, retries=1),
    "train": Stage("train", "train", ("2", "4"), ("4Gi", "8Gi"), 24 * _HOUR, retries=2),
    "validate": Stage("validate", "validate", ("1", "2"), ("1Gi", "4Gi"), _HOUR, retries=1),
    "package": Stage("package", "package", ("1", "2"), ("1Gi", "2Gi"), _HOUR, retries=3),
    "reject": Stage("validate", "common.reject", *_SMALL),
    "summary": Stage("prepare", "common.summary", *_SMALL),
}
# Every image of the pipeline; the function's is not run by it, but packaged.
TARGETS = (*dict.fromkeys(stage.image for stage in STAGES.values()), "function")
