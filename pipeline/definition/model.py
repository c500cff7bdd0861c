"""The part that all pipelines to a model share: train a fold, validate, and the gate.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes

from pipeline.definition.claims import SECRET, SOCKET_CLAIM, WORKDIR_CLAIM
from pipeline.definition.settings import Settings
from pipeline.definition.tasks import container, finished
from pipeline.spec.kubernetes import NETWORK_LABEL


def finished_on_workspace(
    task: dsl.PipelineTask, step: str, images: Mapping[str, str], settings: Settings
) -> None:
    """Finish a task of train or validate: both have the workspace claim, and the GPUs."""
    finished(task, step, images, settings.cluster, settings.gpus)
    kubernetes.mount_pvc(task, WORKDIR_CLAIM, "/mnt/workspace")


def model(
    images: Mapping[str, str], settings: Settings
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the components train and validate, and the pipeline gate, which packages or rejects.

    Their steps run `images`: target -> repository@sha256:…
    """

    def finish(task: dsl.PipelineTask, step: str) -> None:
        finished(task, step, images, settings.cluster)

    @dsl.container_component
    def train(
        fold: str,
        model_type: str,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        optimizer: str,
        seed: int,
        weights: str,
        weights_sha256: str,
        workspace_name: str,
        checkpoint: bool,
        checkpoints_digest: str,
        most_tiles: int,
        tiles_digest: str,
        tiles: dsl.Input[dsl.Dataset],
        model: dsl.Output[dsl.Model],
        metrics: dsl.Output[dsl.Metrics],
        digest: dsl.OutputPath(str),
    ):
        """Train one model that never sees the wells of its fold."""
        return container(images, "train", settings.gpus)

    @dsl.container_component
    def validate(
        f1_threshold: float,
        workspace_name: str,
        checkpoint: bool,
        checkpoints_digest: str,
        seed: int,
        tiles_digest: str,
        model_digests: list,
        tiles: dsl.Input[dsl.Dataset],
        models: dsl.Input[list[dsl.Model]],
        servable: dsl.Output[dsl.Model],
        results: dsl.Output[dsl.Artifact],
        metrics: dsl.Output[dsl.Metrics],
        classification: dsl.Output[dsl.ClassificationMetrics],
        report: dsl.Output[dsl.HTML],
        passed: dsl.OutputPath(bool),
        digest: dsl.OutputPath(str),
    ):
        """Judge every model on the wells it never saw."""
        return container(images, "validate", settings.gpus)

    @dsl.container_component
    def package(
        function_image: str,
        model_repo: str,
        artifact_repo: str,
        workspace_name: str,
        builder: str,
        package_digest: str,
        servable_digest: str,
        servable: dsl.Input[dsl.Model],
        metrics: dsl.Input[dsl.Metrics],
        report: dsl.Input[dsl.HTML],
        image: dsl.OutputPath(str),
        artifact: dsl.OutputPath(str),
        stack: dsl.Output[dsl.Artifact],
        digests: dsl.Output[dsl.Markdown],
    ):
        """Lay the models over the pinned function image and push it."""
        return container(images, "package")

    @dsl.container_component
    def reject(f1_threshold: float):
        """Fail the run because a model did not reach the threshold."""
        return container(images, "reject")

    # A condition on another task's output inside a loop or an exit handler is silently false in
    # some engines; a parameter of a pipeline of its own is not.
    @dsl.pipeline(name="gate")
    def gate(
        passed: bool,
        on_reject: str,
        f1_threshold: float,
        model_repo: str,
        artifact_repo: str,
        workspace_name: str,
        package_digest: str,
        servable_digest: str,
        servable: dsl.Input[dsl.Model],
        metrics: dsl.Input[dsl.Metrics],
        report: dsl.Input[dsl.HTML],
    ):
        with dsl.If(passed == True, name="passed"):  # noqa: E712 - builds a condition
            packaged = package(
                function_image=images["function"],
                model_repo=model_repo,
                artifact_repo=artifact_repo,
                workspace_name=workspace_name,
                builder=settings.builder,
                package_digest=package_digest,
                servable_digest=servable_digest,
                servable=servable,
                metrics=metrics,
                report=report,
            )
            finish(packaged, "package")
            kubernetes.use_secret_as_volume(
                packaged, SECRET, f"/var/run/secrets/{SECRET}", optional=True
            )
            kubernetes.add_pod_label(packaged, NETWORK_LABEL, "yes")  # for its registry
            if settings.builder == "docker":
                kubernetes.mount_pvc(packaged, SOCKET_CLAIM, "/var/run/docker.sock")
        with dsl.Elif(on_reject == "fail", name="rejected"):
            rejected = reject(f1_threshold=f1_threshold)
            finish(rejected, "reject")

    return train, validate, gate
