"""What every task of both pipelines has: its container, resources, limits, user and place."""

from collections.abc import Mapping

from kfp import dsl, kubernetes

from pipeline.definition.cluster import Cluster, declared, put
from pipeline.definition.stages import row

_NONROOT = 65532


def container(images: Mapping[str, str], step: str) -> dsl.ContainerSpec:
    """Return the container of a step, in the image that its row in STAGES names."""
    stage = row(step)
    return dsl.ContainerSpec(
        image=images[stage.image],
        command=["python3", "-m", stage.module],
        args=["--executor-input", "{{$}}"],
    )


def finished(
    task: dsl.PipelineTask, step: str, images: Mapping[str, str], cluster: Cluster
) -> None:
    """Give a task its resources, limits, user, name of its image, and place in the cluster."""
    stage = declared(cluster, step)
    task.set_cpu_request(stage.cpu[0]).set_cpu_limit(stage.cpu[1])
    task.set_memory_request(stage.memory[0]).set_memory_limit(stage.memory[1])
    if stage.retries:
        retry = stage.retry()
        task.set_retry(
            retry.count, backoff_duration=f"{retry.pause:.0f}s", backoff_factor=retry.factor,
            backoff_max_duration=f"{retry.window:.0f}s",
        )  # fmt: skip
    # The stages write it into what they make: a model names the image that trained it.
    task.set_env_variable("PLATELINE_IMAGE", images[stage.image])
    # A digest cannot go stale.
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_timeout(task, stage.seconds)
    kubernetes.set_security_context(
        task, run_as_user=_NONROOT, run_as_group=_NONROOT, run_as_non_root=True
    )
    put(task, cluster, step)
