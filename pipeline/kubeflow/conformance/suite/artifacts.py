"""Artifacts: files, folders, metadata, importers, lists of them.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from types import SimpleNamespace

from kfp import dsl

from pipeline.kubeflow.conformance.suite.case import Case


def cases(c: SimpleNamespace) -> dict[str, Case]:
    """Return name -> case, made of the steps `c`."""

    @dsl.pipeline(name="artifacts")
    def artifacts(text: str = "content") -> str:
        return c.read(one=c.make(text=text).outputs["made"]).output

    @dsl.pipeline(name="silent")
    def silent() -> str:
        return c.read(one=c.make_silently().outputs["made"]).output

    @dsl.pipeline(name="metadata")
    def metadata() -> str:
        return c.know(score=c.describe().outputs["score"]).output

    @dsl.pipeline(name="loop-of-artifacts")
    def loop_artifacts() -> str:
        with dsl.ParallelFor(["x", "y"]) as item:
            said = c.read(one=c.make(text=item).outputs["made"])
        return c.join(texts=dsl.Collected(said.output)).output

    @dsl.pipeline(name="collected-artifacts")
    def collected() -> str:
        with dsl.ParallelFor(["x", "y"]) as item:
            made = c.make(text=item)
        return c.count(many=dsl.Collected(made.outputs["made"])).output

    @dsl.pipeline(name="imported")
    def imported(origin: str = "lab", place: str = "https://example.org/data.csv") -> str:
        found = dsl.importer(
            artifact_uri=place, artifact_class=dsl.Dataset, reimport=True,
            metadata={"origin": origin, "fixed": "yes"},
        )  # fmt: skip
        return c.came_from(one=found.output).output

    return {
        "artifacts": Case(artifacts, {"Output": "content"}),
        "an artifact that is only a file": Case(silent, {"Output": "silent"}),
        "metadata": Case(metadata, {"Output": "0.5"}),
        "artifacts in a loop": Case(loop_artifacts, {"Output": '["x","y"]'}),
        "artifacts of a loop": Case(collected, {"Output": "2"}),
        "metadata of an importer": Case(imported, {"Output": "https://example.org/data.csv lab"}),
    }
