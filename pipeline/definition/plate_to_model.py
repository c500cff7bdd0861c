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

from pipeline.definition.claims import IMAGES_CLAIM, WORKDIR_CLAIM
from pipeline.definition.cluster import config
from pipeline.definition.model import finished_on_workspace, model
from pipeline.definition.settings import Settings
from pipeline.definition.tasks import container, finished

NAME = "plateline"


def build(images: Mapping[str, str], settings: Settings) -> Callable[..., Any]:
    """Return the pipeline whose steps run `images`: target -> repository@sha256:…"""

    def finish(task: dsl.PipelineTask, step: str) -> None:
        finished(task, step, images, settings.cluster)

    train, validate, gate = model(images, settings)

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
        return container(images, "scan")

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
        return container(images, "prepare")

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
        return container(images, "summary")

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
            plate_digest: Digest that the plate must have (sha256:...); empty takes any.
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
                    most_tiles=0,
                    tiles_digest=prepared.outputs["digest"],
                    tiles=prepared.outputs["tiles"],
                )
                finished_on_workspace(trained, "train", images, settings)
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
            finished_on_workspace(judged, "validate", images, settings)
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
