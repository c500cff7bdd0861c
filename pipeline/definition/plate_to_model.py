"""The pipeline: scan, prepare, train for each fold, validate, gate, package, and a summary.

Written against Kubeflow Pipelines v2, whose cache key holds parameters, images and the names of
input artifacts, but not what lies in claims. So a first step, which is never taken from the cache,
reads what the later ones will take from claims and hands its digests on as parameters: all others
are cached by them. Every step hands on the digest of what it made as well, and who gets it checks
it: what was stored for a step that was taken from the cache may be damaged or gone.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes

from pipeline.definition.claims import IMAGES_CLAIM, SECRET, SOCKET_CLAIM, WORKDIR_CLAIM
from pipeline.definition.cluster import Cluster, config, declared, put
from pipeline.definition.settings import Settings
from pipeline.definition.stages import row
from pipeline.spec.kubernetes import NETWORK_LABEL

NAME = "plateline"
_NONROOT = 65532


def _container(images: Mapping[str, str], step: str) -> dsl.ContainerSpec:
    stage = row(step)
    return dsl.ContainerSpec(
        image=images[stage.image],
        command=["python3", "-m", stage.module],
        args=["--executor-input", "{{$}}"],
    )


def build(images: Mapping[str, str], settings: Settings) -> Callable[..., Any]:
    """Return the pipeline whose steps run `images`: target -> repository@sha256:…"""

    def finish(task: dsl.PipelineTask, step: str) -> None:
        _finish(task, step, images, settings.cluster)

    @dsl.container_component
    def scan(
        plate_path: str,
        plate_layout: str,
        plate_digest: str,
        workspace_name: str,
        checkpoint_prepare: bool,
        checkpoint_train: bool,
        checkpoint_validate: bool,
        plate: dsl.OutputPath(str),
        layout: dsl.OutputPath(str),
        checkpoints: dsl.OutputPath(str),
    ):
        """Hash what later steps take from claims: the plate, its layout, the checkpoints."""
        return _container(images, "scan")

    @dsl.container_component
    def prepare(
        plate_path: str,
        plate_layout: str,
        plate_digest: str,
        layout_digest: str,
        workspace_name: str,
        checkpoint: bool,
        checkpoints_digest: str,
        fresh: str,
        tiles: dsl.Output[dsl.Dataset],
        summary: dsl.Output[dsl.HTML],
        folds: dsl.OutputPath(list),
        digest: dsl.OutputPath(str),
    ):
        """Read the plate's images, check them, cut them to tiles."""
        return _container(images, "prepare")

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
        tiles_digest: str,
        tiles: dsl.Input[dsl.Dataset],
        model: dsl.Output[dsl.Model],
        metrics: dsl.Output[dsl.Metrics],
        digest: dsl.OutputPath(str),
    ):
        """Train one model that never sees the wells of its fold."""
        return _container(images, "train")

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
        return _container(images, "validate")

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
        return _container(images, "package")

    @dsl.container_component
    def reject(f1_threshold: float):
        """Fail the run because a model did not reach the threshold."""
        return _container(images, "reject")

    @dsl.container_component
    def summary(
        status: dsl.PipelineTaskFinalStatus,
        plate_path: str,
        model_type: str,
        f1_threshold: float,
        on_reject: str,
        workspace_name: str,
        model_repo: str,
        package_digest: str,
        summary: dsl.Output[dsl.Markdown],
    ):
        """Say how the run ended and what it was asked for: no artifact reaches an exit task."""
        return _container(images, "summary")

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

    @dsl.pipeline(
        name=NAME, description="From a microscopy plate to a validated, packaged model.",
        pipeline_config=config(settings.cluster),
    )  # fmt: skip
    def plateline(
        plate_path: str = "bbbc/BBBC014/BBBC014_v1_images",
        plate_layout: str = "bbbc014",
        plate_digest: str = "",
        model_type: str = "EfficientNet_Lite0",
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        optimizer: str = "newton",
        seed: int = 0,
        weights: str = "imagenet",
        weights_sha256: str = "",
        f1_threshold: float = 0.8,
        checkpoint_prepare: bool = False,
        checkpoint_train: bool = False,
        checkpoint_validate: bool = False,
        workspace_name: str = "kensert_CNN",
        artifact_repo: str = "",
        model_repo: str = "localhost/plateline/model",
        on_reject: str = "fail",
        fresh: str = "",
        package_digest: str = "",
    ):
        """From a microscopy plate to a validated, packaged model.

        Args:
            plate_path: Folder of the plate's images inside the claim external-images-kubeflow-pvc.
            plate_layout: Name of a known layout (bbbc013, bbbc014), or a TOML file
                in the plate's folder.
            plate_digest: Digest that the plate must have (sha256:…); empty takes any.
            model_type: EfficientNet_Lite0, ResNet50, Inception_v3 or Inception_Resnet_v2.
            epochs: Passes over the training tiles, at most.
            batch_size: Tiles an optimisation step.
            learning_rate: Step size of the optimiser.
            optimizer: How the last layer is fitted; newton, or sgd with momentum.
            seed: Seed of everything random.
            weights: Where the network starts: imagenet (the pinned weights of the model
                type), none (random ones), or a file's path.
            weights_sha256: Digest that a file given by weights must have.
            f1_threshold: Weighted F1 on held-out wells that every model must reach.
            checkpoint_prepare: Take the tiles that the workspace holds instead of making them.
            checkpoint_train: Take the models that the workspace holds instead of training.
            checkpoint_validate: Take the results that the workspace holds instead of judging.
            workspace_name: Folder inside the claim kubeflow-workdir-pvc for this run's results.
            artifact_repo: OCI repository for model, metrics and report as one artifact;
                empty keeps none.
            model_repo: OCI repository for the servable image.
            on_reject: What a model below the threshold does to the run: fail or skip.
            fresh: Any text not used before runs every step again; what an earlier run left in the
                cache is then not taken.
            package_digest: Digest of this package; submit and run fill it in.
        """
        ending = summary(
            plate_path=plate_path,
            model_type=model_type,
            f1_threshold=f1_threshold,
            on_reject=on_reject,
            workspace_name=workspace_name,
            model_repo=model_repo,
            package_digest=package_digest,
        )
        finish(ending, "summary")
        # Taken from the cache it would tell how another run ended.
        ending.set_caching_options(False)
        with dsl.ExitHandler(ending, name="plate-to-model"):
            scanned = scan(
                plate_path=plate_path,
                plate_layout=plate_layout,
                plate_digest=plate_digest,
                workspace_name=workspace_name,
                checkpoint_prepare=checkpoint_prepare,
                checkpoint_train=checkpoint_train,
                checkpoint_validate=checkpoint_validate,
            )
            finish(scanned, "scan")
            # It says what lies in the claims now, which is not in the cache key.
            scanned.set_caching_options(False)
            kubernetes.mount_pvc(scanned, IMAGES_CLAIM, "/mnt/images")
            kubernetes.mount_pvc(scanned, WORKDIR_CLAIM, "/mnt/workspace")
            prepared = prepare(
                plate_path=plate_path,
                plate_layout=plate_layout,
                plate_digest=scanned.outputs["plate"],
                layout_digest=scanned.outputs["layout"],
                workspace_name=workspace_name,
                checkpoint=checkpoint_prepare,
                checkpoints_digest=scanned.outputs["checkpoints"],
                fresh=fresh,
            )
            finish(prepared, "prepare")
            kubernetes.mount_pvc(prepared, IMAGES_CLAIM, "/mnt/images")
            kubernetes.mount_pvc(prepared, WORKDIR_CLAIM, "/mnt/workspace")
            with dsl.ParallelFor(prepared.outputs["folds"], name="folds") as fold:
                trained = train(
                    fold=fold,
                    model_type=model_type,
                    epochs=epochs,
                    batch_size=batch_size,
                    learning_rate=learning_rate,
                    optimizer=optimizer,
                    seed=seed,
                    weights=weights,
                    weights_sha256=weights_sha256,
                    workspace_name=workspace_name,
                    checkpoint=checkpoint_train,
                    checkpoints_digest=scanned.outputs["checkpoints"],
                    tiles_digest=prepared.outputs["digest"],
                    tiles=prepared.outputs["tiles"],
                )
                finish(trained, "train")
                kubernetes.mount_pvc(trained, WORKDIR_CLAIM, "/mnt/workspace")
                if settings.gpus:
                    trained.set_accelerator_type("nvidia.com/gpu")
                    trained.set_accelerator_limit(settings.gpus)
            judged = validate(
                f1_threshold=f1_threshold,
                workspace_name=workspace_name,
                checkpoint=checkpoint_validate,
                checkpoints_digest=scanned.outputs["checkpoints"],
                seed=seed,
                tiles_digest=prepared.outputs["digest"],
                model_digests=dsl.Collected(trained.outputs["digest"]),
                tiles=prepared.outputs["tiles"],
                models=dsl.Collected(trained.outputs["model"]),
            )
            finish(judged, "validate")
            kubernetes.mount_pvc(judged, WORKDIR_CLAIM, "/mnt/workspace")
            gate(
                passed=judged.outputs["passed"],
                on_reject=on_reject,
                f1_threshold=f1_threshold,
                model_repo=model_repo,
                artifact_repo=artifact_repo,
                workspace_name=workspace_name,
                package_digest=package_digest,
                servable_digest=judged.outputs["digest"],
                servable=judged.outputs["servable"],
                metrics=judged.outputs["metrics"],
                report=judged.outputs["report"],
            )

    return plateline


def _finish(task: dsl.PipelineTask, step: str, images: Mapping[str, str], cluster: Cluster) -> None:
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
