"""What every task of both pipelines has: its container, resources, limits, user and place."""

from collections.abc import Mapping

from kfp import dsl, kubernetes

from pipeline.definition.cluster import Cluster, declared, put
from pipeline.definition.stages import row
from pipeline.spec.kubernetes import GPU

_NONROOT = 65532


def container(images: Mapping[str, str], step: str, gpus: int = 0) -> dsl.ContainerSpec:
    """Return the container of a step, in the image that its row in STAGES names."""
    stage = row(step)
    return dsl.ContainerSpec(
        image=images[stage.target(gpus)],
        command=["python3", "-m", stage.module],
        args=["--executor-input", "{{$}}"],
    )


def finished(
    task: dsl.PipelineTask, step: str, images: Mapping[str, str], cluster: Cluster, gpus: int = 0
) -> None:
    """Give a task its resources, limits, user, name of its image, and place in the cluster.

    With `gpus` one that computes on a GPU gets so many, and what lets it near them.
    """
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
    task.set_env_variable("PLATELINE_IMAGE", images[stage.target(gpus)])
    if gpus and stage.gpu:
        task.set_accelerator_type(GPU).set_accelerator_limit(gpus)
        # The device plugin says which GPUs; of the driver this is what CUDA needs. NVIDIA's own
        # images say so themselves, and on a node with its runtime get GPUs that nobody asked for.
        task.set_env_variable("NVIDIA_DRIVER_CAPABILITIES", "compute,utility")
        # Nodes with GPUs are often kept for those who need them by a taint of this name.
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    # A digest cannot go stale.
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_timeout(task, stage.seconds)
    kubernetes.set_security_context(
        task, run_as_user=_NONROOT, run_as_group=_NONROOT, run_as_non_root=True
    )
    put(task, cluster, step)
