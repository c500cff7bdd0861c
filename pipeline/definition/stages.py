"""The steps of the pipelines: each one's image, module, resources, time limit and retries.

A new stage is declared here, and gets its inputs, outputs and place in plate_to_model.py or in
plates_to_model.py or plates_to_hits.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.spec.retries import Retries

_HERE = "pipeline/definition/stages.py"


@dataclass(frozen=True, slots=True)
class Stage:
    """A step: the target whose image runs `python3 -m module`.

    `cpu` and `memory` are request and limit, as Kubernetes writes them, `seconds` is the time limit
    of one try, pull of the image included, and `retries` how often it is tried again. `gpu` is the
    variant of the image that computes on a GPU, which a pipeline compiled with GPUs takes instead.
    """

    image: str
    module: str
    cpu: tuple[str, str]
    memory: tuple[str, str]
    seconds: int
    retries: int = 0
    gpu: str = ""

    def target(self, gpus: int = 0) -> str:
        """Return the target of its image in a pipeline that was compiled with so many GPUs."""
        return f"{self.image}-{self.gpu}" if gpus and self.gpu else self.image

    def retry(self) -> Retries:
        """Return retries 5 s apart and doubling, whose window lets the last one begin."""
        plan = Retries(self.retries, pause=5, factor=2)
        return Retries(plan.count, plan.pause, plan.factor, plan.needs(self.seconds))


_HOUR = 3600
_SMALL = (("100m", "1"), ("256Mi", "512Mi"), 600)  # the launcher alone takes 103 MB

STAGES = {
    "scan": Stage("prepare", "prepare.scan", ("100m", "1"), ("256Mi", "512Mi"), _HOUR, retries=1),
    "prepare": Stage("prepare", "prepare", ("2", "4"), ("4Gi", "8Gi"), _HOUR, retries=1),
    "train": Stage(
        "train", "train", ("2", "4"), ("4Gi", "8Gi"), 24 * _HOUR, retries=2, gpu="cuda12"
    ),
    "validate": Stage(
        "validate", "validate", ("1", "2"), ("1Gi", "4Gi"), _HOUR, retries=1, gpu="cuda12"
    ),
    "package": Stage("package", "package", ("1", "2"), ("1Gi", "2Gi"), _HOUR, retries=3),
    "reject": Stage("validate", "common.reject", *_SMALL),
    "summary": Stage("prepare", "common.summary", *_SMALL),
    "plates-summary": Stage("prepare", "prepare.ending", *_SMALL),
    "list-plates": Stage("prepare", "prepare.plates", *_SMALL, retries=1),
    "control-tiles": Stage(
        "prepare", "prepare.controls", ("2", "4"), ("2Gi", "4Gi"), 4 * _HOUR, retries=1
    ),
    "gather": Stage("prepare", "prepare.gather", ("100m", "1"), ("512Mi", "2Gi"), _HOUR, retries=1),
    "fetch": Stage("package", "package.fetch", ("100m", "1"), ("256Mi", "1Gi"), _HOUR, retries=3),
    "scan-plate": Stage(
        "prepare", "prepare.listed_scan", ("100m", "1"), ("256Mi", "512Mi"), _HOUR, retries=1
    ),
    "prepare-plate": Stage(
        "prepare", "prepare.listed", ("2", "4"), ("4Gi", "8Gi"), 4 * _HOUR, retries=1
    ),
    "score": Stage("score", "score", ("2", "4"), ("2Gi", "8Gi"), 4 * _HOUR, retries=1),
    "screen": Stage("score", "score.screen", ("1", "2"), ("1Gi", "8Gi"), _HOUR, retries=1),
}
PIPELINES = {  # name -> its steps
    "plateline": ("scan", "prepare", "train", "validate", "package", "reject", "summary"),
    "plateline-plates": (
        "list-plates", "control-tiles", "gather", "train", "validate", "package", "reject",
        "plates-summary",
    ),
    "plateline-score": ("list-plates", "fetch", "scan-plate", "prepare-plate", "score", "screen"),
}  # fmt: skip
MODEL, PLATES, SCORE = PIPELINES


def images_of(pipeline: str, gpus: int = 0) -> tuple[str, ...]:
    """Return the targets of all images that a pipeline runs or hands on.

    With `gpus` those of the steps that compute on one are variants; raises PipelineError where the
    pipeline has no such step.
    """
    if gpus and not any(STAGES[step].gpu for step in PIPELINES[pipeline]):
        raise PipelineError(f"--gpus: no step of {pipeline} computes on a GPU; leave it out")
    own = dict.fromkeys(STAGES[step].target(gpus) for step in PIPELINES[pipeline])
    return (*own, "function") if "package" in PIPELINES[pipeline] else tuple(own)


TARGETS = images_of(MODEL)


def row(step: str) -> Stage:
    """Return the row of a step; raises PipelineError with the row to add where there is none."""
    if step not in STAGES:
        raise PipelineError(
            f"the step {step!r} has no row in STAGES of {_HERE}; add one there, for example\n"
            f'    "{step}": Stage("{step}", "{step}", ("1", "2"), ("1Gi", "2Gi"), _HOUR),\n'
            f"(image, module, CPU and memory as request and limit, time limit); it has "
            f"{', '.join(STAGES)}"
        )
    return STAGES[step]


def targets(known: Collection[str], pipeline: str = MODEL, gpus: int = 0) -> tuple[str, ...]:
    """Return the targets of a pipeline's images.

    Raises PipelineError for a pipeline that there is not, for a row whose image is not among the
    targets `known`, and as `images_of`.
    """
    if pipeline not in PIPELINES:
        raise PipelineError(f"there is no pipeline {pipeline!r}; there are {', '.join(PIPELINES)}")
    for step, named in STAGES.items():
        if step not in PIPELINES[pipeline]:
            continue
        if named.image not in known:
            raise PipelineError(
                f"the row {step!r} in STAGES of {_HERE} names the image {named.image!r}, and there "
                f"is no stages/{named.image}/Dockerfile; name one of {', '.join(sorted(known))} "
                f"there, or write the stage with `invoke new-stage {named.image}`"
            )
        if (target := named.target(gpus)) not in known:
            raise PipelineError(
                f"the row {step!r} in STAGES of {_HERE} names the variant {target}, and there is "
                f"no stages/{named.image}/requirements.{named.gpu}.in; write it, or give no --gpus"
            )
    return images_of(pipeline, gpus)
