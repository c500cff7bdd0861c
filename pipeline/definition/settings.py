"""What is fixed when the plate-to-model pipeline is compiled, and the images that it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.definition.cluster import Cluster
from pipeline.errors import PipelineError

BUILDERS = ("registry", "docker")


@dataclass(frozen=True)
class Settings:
    """What is fixed when the pipeline is compiled.

    GPUs a step of train and validate, who builds the image, what the cluster wants, and how many
    plates of a list are worked on at the same time: ParallelFor takes that number when it is
    compiled (kfp 2.17).
    """

    gpus: int = 0
    builder: str = "registry"
    cluster: Cluster = field(default_factory=Cluster)
    plates_at_once: int = 8

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise PipelineError(f"--gpus {self.gpus}: give 0 or a positive number")
        if self.plates_at_once < 1:
            raise PipelineError(f"--plates-at-once {self.plates_at_once}: give 1 or more")
        if self.builder not in BUILDERS:
            raise PipelineError(f"--builder {self.builder}: give one of {', '.join(BUILDERS)}")
