"""The pipeline for many plates: their control wells, in parallel; gather; train, validate, gate.

Only the list of plates grows with their number: the package has one loop over it. Each plate's step
writes its tiles to the workspace claim and hands on their digest, a parameter: a thousand artifacts
would have to be copied to every step that trains, and not even their names fit the one argument
that a step is started with. That step is never taken from the backend's cache, since it says what
lies in the claims; it keeps what it finds made already. What follows is cached by the digests.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes

from pipeline.definition.claims import IMAGES_CLAIM, WORKDIR_CLAIM
from pipeline.definition.cluster import config
from pipeline.definition.model import finished_on_workspace, model
from pipeline.definition.settings import Settings
from pipeline.definition.stages import PLATES
from pipeline.definition.tasks import container, finished

NAME = PLATES


def build(images: Mapping[str, str], settings: Settings) -> Callable[..., Any]:
    """Return the pipeline whose steps run `images`: target -> repository@sha256:…"""

    def finish(task: dsl.PipelineTask, step: str) -> None:
        finished(task, step, images, settings.cluster)

    train, validate, gate = model(images, settings)

    @dsl.container_component
    def list_plates(plates: str, plate_layout: str, listed: dsl.OutputPath(list)):
        """Read the list of plates."""
        return container(images, "list-plates")

    @dsl.container_component
    def control_tiles(
        listed: str,
        on_broken: str,
        tiles_per_well: int,
        workspace_name: str,
        fresh: str,
        digest: dsl.OutputPath(str),
    ):
        """Cut a plate's control wells to tiles on the workspace, or say why it cannot be used."""
        return container(images, "control-tiles")

    @dsl.container_component
    def gather(
        digests: list,
        hold_out: str,
        most_folds: int,
        workspace_name: str,
        tiles: dsl.Output[dsl.Dataset],
        summary: dsl.Output[dsl.HTML],
        folds: dsl.OutputPath(list),
        digest: dsl.OutputPath(str),
    ):
        """Put the plates' tiles together by name, without a copy, and say which plates failed."""
        return container(images, "gather")

    @dsl.container_component
    def plates_summary(
        status: dsl.PipelineTaskFinalStatus,
        plates: str,
        plate_layout: str,
        model_type: str,
        f1_threshold: float,
        on_reject: str,
        workspace_name: str,
        model_repo: str,
        package_digest: str,
        summary: dsl.Output[dsl.Markdown],
    ):
        """Say how the run ended and which plates it could not use: no artifact reaches it."""
        return container(images, "plates-summary")

    @dsl.pipeline(
        name=NAME, description="From many microscopy plates to a validated, packaged model.",
        pipeline_config=config(settings.cluster),
    )  # fmt: skip
    def plateline_plates(
        plates: str,
        plate_layout: str = "",
        hold_out: str = "plate",
        most_folds: int = 5,
        tiles_per_well: int = 16,
        most_tiles: int = 2000,
        on_broken: str = "report",
        model_type: str = "EfficientNet_Lite0",
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        optimizer: str = "newton",
        seed: int = 0,
        weights: str = "imagenet",
        weights_sha256: str = "",
        f1_threshold: float = 0.8,
        workspace_name: str = "plates",
        artifact_repo: str = "",
        model_repo: str = "localhost/plateline/model",
        on_reject: str = "fail",
        fresh: str = "",
        package_digest: str = "",
    ):
        """From many microscopy plates to a validated, packaged model.

        Args:
            plates: The list of plates (CSV, TSV, Excel, JSON) inside the claim
                external-images-kubeflow-pvc, or a pattern of folders there, such as screen/P*.
            plate_layout: Layout of the plates whose line in the list has none.
            hold_out: What a model never sees and is judged on: plate (whole plates), or half (a
                half of each plate, as the layout's folds say).
            most_folds: Models at most, for hold_out = plate; each is judged on its share of the
                plates, which is one plate where there are no more plates than folds.
            tiles_per_well: Tiles of a control well at most, spread over its fields; 0 takes all.
            most_tiles: Tiles that a model is trained on at most, spread over all plates; 0 takes
                all.
            on_broken: What a plate that cannot be used does: report (the others go on) or fail.
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
            workspace_name: Folder inside the claim kubeflow-workdir-pvc for this run's results.
            artifact_repo: OCI repository for model, metrics and report as one artifact;
                empty keeps none.
            model_repo: OCI repository for the servable image.
            on_reject: What a model below the threshold does to the run: fail or skip.
            fresh: Any text not used before cuts every plate again.
            package_digest: Digest of this package; submit and run fill it in.
        """
        ending = plates_summary(
            plates=plates,
            plate_layout=plate_layout,
            model_type=model_type,
            f1_threshold=f1_threshold,
            on_reject=on_reject,
            workspace_name=workspace_name,
            model_repo=model_repo,
            package_digest=package_digest,
        )
        finish(ending, "plates-summary")
        kubernetes.mount_pvc(ending, IMAGES_CLAIM, "/mnt/images")
        kubernetes.mount_pvc(ending, WORKDIR_CLAIM, "/mnt/workspace")
        # Taken from the cache it would tell how another run ended.
        ending.set_caching_options(False)
        with dsl.ExitHandler(ending, name="plates-to-model"):
            given = list_plates(plates=plates, plate_layout=plate_layout)
            finish(given, "list-plates")
            # It says what lies in the claim now, which is not in the cache key.
            given.set_caching_options(False)
            kubernetes.mount_pvc(given, IMAGES_CLAIM, "/mnt/images")
            with dsl.ParallelFor(
                given.outputs["listed"], name="plates", parallelism=settings.plates_at_once
            ) as one:
                cut = control_tiles(
                    listed=one,
                    on_broken=on_broken,
                    tiles_per_well=tiles_per_well,
                    workspace_name=workspace_name,
                    fresh=fresh,
                )
                finish(cut, "control-tiles")
                cut.set_caching_options(False)
                kubernetes.mount_pvc(cut, IMAGES_CLAIM, "/mnt/images")
                kubernetes.mount_pvc(cut, WORKDIR_CLAIM, "/mnt/workspace")
            gathered = gather(
                digests=dsl.Collected(cut.outputs["digest"]),
                hold_out=hold_out,
                most_folds=most_folds,
                workspace_name=workspace_name,
            )
            finish(gathered, "gather")
            kubernetes.mount_pvc(gathered, WORKDIR_CLAIM, "/mnt/workspace")
            with dsl.ParallelFor(gathered.outputs["folds"], name="folds") as fold:
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
                    checkpoint=False,
                    checkpoints_digest="",
                    most_tiles=most_tiles,
                    tiles_digest=gathered.outputs["digest"],
                    tiles=gathered.outputs["tiles"],
                )
                finished_on_workspace(trained, "train", images, settings)
            judged = validate(
                f1_threshold=f1_threshold,
                workspace_name=workspace_name,
                checkpoint=False,
                checkpoints_digest="",
                seed=seed,
                tiles_digest=gathered.outputs["digest"],
                model_digests=dsl.Collected(trained.outputs["digest"]),
                tiles=gathered.outputs["tiles"],
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

    return plateline_plates
