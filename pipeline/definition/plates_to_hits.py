"""The pipeline that scores a screen: list the plates, fetch the model, score each, list the hits.

As in `plate_to_model`, a first step of each plate reads what lies in the claim and is never taken
from the cache; all others are cached by the digests that it hands on. A plate that cannot be used
is handed on as such, so the others are scored and the hit list says which failed.

Only the list of plates grows with their number. A plate's tables go to the workspace claim as well,
and their digest alone to the last step: the names of a thousand artifacts do not fit the one
argument that a step is started with.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes

from pipeline.definition.claims import IMAGES_CLAIM, SECRET, WORKDIR_CLAIM
from pipeline.definition.cluster import config
from pipeline.definition.settings import Settings
from pipeline.definition.stages import SCORE
from pipeline.definition.tasks import container, finished
from pipeline.spec.kubernetes import NETWORK_LABEL

NAME = SCORE


def build(images: Mapping[str, str], settings: Settings) -> Callable[..., Any]:
    """Return the pipeline whose steps run `images`: target -> repository@sha256:…"""

    def finish(task: dsl.PipelineTask, step: str) -> None:
        finished(task, step, images, settings.cluster)

    @dsl.container_component
    def list_plates(plates: str, plate_layout: str, listed: dsl.OutputPath(list)):
        """Read the list of plates."""
        return container(images, "list-plates")

    @dsl.container_component
    def fetch(model: str, servable: dsl.Output[dsl.Model], digest: dsl.OutputPath(str)):
        """Take the released model out of its image, each byte checked against its digest."""
        return container(images, "fetch")

    @dsl.container_component
    def scan_plate(
        listed: str,
        on_broken: str,
        plate: dsl.OutputPath(str),
        layout: dsl.OutputPath(str),
        problem: dsl.OutputPath(str),
    ):
        """Hash a plate and its layout, or say why it cannot be used."""
        return container(images, "scan-plate")

    @dsl.container_component
    def prepare_plate(
        listed: str,
        on_broken: str,
        plate_digest: str,
        layout_digest: str,
        problem: str,
        fresh: str,
        tiles: dsl.Output[dsl.Dataset],
        summary: dsl.Output[dsl.HTML],
        digest: dsl.OutputPath(str),
    ):
        """Read a plate's images, check them, cut them to tiles."""
        return container(images, "prepare-plate")

    @dsl.container_component
    def score(
        listed: str,
        model: str,
        normalisation: str,
        min_z_prime: float,
        min_cells: int,
        min_cell_share: float,
        nucleus_diameter: float,
        workspace_name: str,
        fresh: str,
        servable_digest: str,
        tiles_digest: str,
        servable: dsl.Input[dsl.Model],
        tiles: dsl.Input[dsl.Dataset],
        scores: dsl.Output[dsl.Dataset],
        metrics: dsl.Output[dsl.Metrics],
        digest: dsl.OutputPath(str),
    ):
        """Score a plate's wells, measure their nuclei, and judge the plate."""
        return container(images, "score")

    @dsl.container_component
    def screen(
        false_discovery_rate: float,
        min_agreement: float,
        workspace_name: str,
        scores_digests: list,
        screen: dsl.Output[dsl.Dataset],
        summary: dsl.Output[dsl.Markdown],
        report: dsl.Output[dsl.HTML],
        metrics: dsl.Output[dsl.Metrics],
        hits: dsl.OutputPath(int),
        digest: dsl.OutputPath(str),
    ):
        """Put the plates together and list the hits."""
        return container(images, "screen")

    @dsl.pipeline(
        name=NAME, description="From plates and a released model to a list of hits.",
        pipeline_config=config(settings.cluster),
    )  # fmt: skip
    def plateline_score(
        plates: str,
        model: str,
        plate_layout: str = "",
        normalisation: str = "controls",
        false_discovery_rate: float = 0.05,
        min_agreement: float = 0.5,
        min_z_prime: float = 0.0,
        min_cells: int = 10,
        min_cell_share: float = 0.5,
        nucleus_diameter: float = 18.0,
        on_broken: str = "report",
        workspace_name: str = "screen",
        fresh: str = "",
    ):
        """From plates and a released model to a list of hits.

        Args:
            plates: The list of plates (CSV, TSV, Excel, JSON) inside the claim
                external-images-kubeflow-pvc, or a pattern of folders there, such as screen/P*.
            model: The released function image or model artifact, HOST/NAME@sha256:...
            plate_layout: Layout of the plates whose line in the list has none.
            normalisation: Against what a plate's scores are measured: controls, mad or b-score.
            false_discovery_rate: Share of false ones among the hits, on average, at most.
            min_agreement: Share of a treatment's usable wells that must be called positive.
            min_z_prime: Z' on log odds below which a plate fails.
            min_cells: Nuclei a field below which a well is flagged.
            min_cell_share: The same, as a share of the negative controls' median.
            nucleus_diameter: Usual diameter of a nucleus, in pixels of a tile.
            on_broken: What a plate that cannot be used does: report (the others go on) or fail.
            workspace_name: Folder inside the claim kubeflow-workdir-pvc for the plates' tables.
            fresh: Any text not used before prepares and scores every plate again; what an earlier
                run left in the cache is then not taken.
        """
        given = list_plates(plates=plates, plate_layout=plate_layout)
        finish(given, "list-plates")
        # It says what lies in the claim now, which is not in the cache key.
        given.set_caching_options(False)
        kubernetes.mount_pvc(given, IMAGES_CLAIM, "/mnt/images")
        fetched = fetch(model=model)
        finish(fetched, "fetch")
        kubernetes.use_secret_as_volume(
            fetched, SECRET, f"/var/run/secrets/{SECRET}", optional=True
        )
        kubernetes.add_pod_label(fetched, NETWORK_LABEL, "yes")  # for its registry
        with dsl.ParallelFor(
            given.outputs["listed"], name="plates", parallelism=settings.plates_at_once
        ) as one:
            scanned = scan_plate(listed=one, on_broken=on_broken)
            finish(scanned, "scan-plate")
            scanned.set_caching_options(False)
            kubernetes.mount_pvc(scanned, IMAGES_CLAIM, "/mnt/images")
            prepared = prepare_plate(
                listed=one,
                on_broken=on_broken,
                plate_digest=scanned.outputs["plate"],
                layout_digest=scanned.outputs["layout"],
                problem=scanned.outputs["problem"],
                fresh=fresh,
            )
            finish(prepared, "prepare-plate")
            kubernetes.mount_pvc(prepared, IMAGES_CLAIM, "/mnt/images")
            scored = score(
                listed=one,
                model=model,
                normalisation=normalisation,
                min_z_prime=min_z_prime,
                min_cells=min_cells,
                min_cell_share=min_cell_share,
                nucleus_diameter=nucleus_diameter,
                workspace_name=workspace_name,
                fresh=fresh,
                servable_digest=fetched.outputs["digest"],
                tiles_digest=prepared.outputs["digest"],
                servable=fetched.outputs["servable"],
                tiles=prepared.outputs["tiles"],
            )
            finish(scored, "score")
            kubernetes.mount_pvc(scored, WORKDIR_CLAIM, "/mnt/workspace")
        listed = screen(
            false_discovery_rate=false_discovery_rate,
            min_agreement=min_agreement,
            workspace_name=workspace_name,
            scores_digests=dsl.Collected(scored.outputs["digest"]),
        )
        finish(listed, "screen")
        kubernetes.mount_pvc(listed, WORKDIR_CLAIM, "/mnt/workspace")

    return plateline_score
