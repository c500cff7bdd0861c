"""A step is taken from the cache as on the backend, and never where its files are gone."""

import pytest
from kfp import dsl, kubernetes

from builder.store import Store, roots
from pipeline.run.runner import Volume
from pipeline.run.step.cache import Cache
from pipeline.run.step.publication import Publication
from tests.pipeline.run.conftest import busybox


@pytest.fixture
def house(image, tmp_path, execute):
    """A pipeline in the form of the package's own: a first step that hashes a claim, then work."""
    for name in ("plate", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "plate" / "well").write_text("one")

    def shell(script, *words):
        return dsl.ContainerSpec(image, ["sh", "-c", script], list(words))

    @dsl.container_component
    def scan(digest: dsl.OutputPath(str)):
        return shell('mkdir -p "${0%/*}"; sha256sum < /plate/well > "$0"', digest)

    @dsl.container_component
    def prepare(digest: str, fresh: str, tiles: dsl.Output[dsl.Dataset]):
        return shell('mkdir -p "${0%/*}"; cp=$(cat /plate/well); echo "$cp" > "$0"; '
                     'echo left > /work/prepare', tiles.path)  # fmt: skip

    @dsl.container_component
    def train(name: str, tiles: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return shell('mkdir -p "${1%/*}"; cat "$0" > "$1"', tiles.path, said)

    @dsl.container_component
    def summary(said: dsl.OutputPath(str)):
        return shell('mkdir -p "${0%/*}"; echo end > "$0"', said)

    @dsl.pipeline(name="house")
    def pipeline(fresh: str = ""):
        end = summary()
        end.set_caching_options(False)
        with dsl.ExitHandler(end, name="all"):
            scanned = scan()
            scanned.set_caching_options(False)
            kubernetes.mount_pvc(scanned, "plate", "/plate")
            prepared = prepare(digest=scanned.output, fresh=fresh)
            kubernetes.mount_pvc(prepared, "plate", "/plate")
            kubernetes.mount_pvc(prepared, "work", "/work")
            with dsl.ParallelFor(["a", "b"], name="folds") as fold:
                train(name=fold, tiles=prepared.outputs["tiles"])

    def run(**parameters):
        result = execute(
            pipeline, cache=True, **parameters,
            volumes={"plate": Volume(tmp_path / "plate"),
                     "work": Volume(tmp_path / "work", writable=True)},
        )  # fmt: skip
        assert result.state == "succeeded", result.error
        ran = [step.name for step in result.steps.values() if step.state != "cached"]
        return sorted(name.rpartition(".")[2] for name in ran)

    run.plate, run.work = tmp_path / "plate", tmp_path / "work"
    return run


ALL = ["prepare", "scan", "summary", "train", "train"]
FEW = ["scan", "summary"]


def test_of_a_second_run_only_the_first_step_and_the_summary_run(house):
    assert [house(), house(), house()] == [ALL, FEW, FEW]


def test_another_content_of_the_claim_runs_everything_and_the_old_one_nothing(house):
    house()
    (house.plate / "well").write_text("two")
    assert house() == ALL
    (house.plate / "well").write_text("one")
    assert house() == FEW


def test_a_text_not_used_before_runs_everything(house):
    house()
    assert house(fresh="again") == ALL
    assert house(fresh="again") == FEW


def test_what_a_cached_step_left_in_a_claim_is_there_or_the_step_runs(house):
    house()
    (house.work / "prepare").unlink()
    assert house() == ALL
    assert (house.work / "prepare").read_text() == "left\n"


@pytest.mark.parametrize("first_is_cached", [True, False])
def test_an_artifact_of_a_step_that_ran_again_is_another_one(execute, image, first_is_cached):
    """The backend's key holds the artifact's id, which is new for each time that it is made."""

    @dsl.container_component
    def make(made: dsl.Output[dsl.Dataset]):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${0%/*}"; echo same > "$0"'], [made.path]
        )

    @dsl.container_component
    def read(one: dsl.Input[dsl.Dataset]):
        return dsl.ContainerSpec(image, ["cat"], [one.path])

    @dsl.pipeline(name="chain")
    def chain():
        first = make().set_caching_options(first_is_cached)
        read(one=first.outputs["made"])

    states = [
        {name: step.state for name, step in execute(chain, cache=True).steps.items()} for _ in "12"
    ]
    assert set(states[0].values()) == {"succeeded"}
    assert set(states[1].values()) == {"cached" if first_is_cached else "succeeded"}


@pytest.mark.parametrize(("reimport", "state"), [(True, "succeeded"), (False, "cached")])
def test_what_is_imported_again_is_another_artifact(execute, image, reimport, state):
    @dsl.container_component
    def look(one: dsl.Input[dsl.Dataset]):
        return dsl.ContainerSpec(image, ["echo"], [one.uri])

    @dsl.pipeline(name="imports")
    def imports():
        found = dsl.importer(
            artifact_uri="s3://b/data.csv", artifact_class=dsl.Dataset, reimport=reimport
        )
        look(one=found.output)

    states = [execute(imports, cache=True).steps["look"].state for _ in "12"]
    assert states == ["succeeded", state]


def test_no_id_of_an_artifact_reaches_a_step(execute, image):
    @dsl.container_component
    def make(made: dsl.Output[dsl.Dataset]):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${0%/*}"; echo same > "$0"'], [made.path]
        )

    @dsl.container_component
    def tell(one: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'mkdir -p "${1%/*}"; echo "$0" > "$1"'], ["{{$}}", said]
        )

    @dsl.pipeline(name="told")
    def told():
        tell(one=make().outputs["made"])

    said = [execute(told).steps["tell"].outputs["said"] for _ in "12"]
    assert said[0] == said[1]
    assert '"id"' not in said[0]


def test_what_a_step_published_is_in_the_store_or_the_step_runs(tmp_path):
    """A cached step publishes nothing, so the store must hold what it once published."""
    store = Store.open(tmp_path / "store")
    publication = Publication.open(store, tmp_path / "own", {"repo": "localhost/t/model:v1"})
    publication.renew()
    own = Store(publication.folder)
    published = busybox(own)
    roots.keep(own, "localhost/t/model", published.manifest)
    found = publication.take()
    assert found == {"localhost/t/model": published.digest}
    assert publication.holds(found)
    assert not publication.holds({"localhost/t/model": "sha256:" + "0" * 64})
    assert not publication.holds({"localhost/t/other": published.digest})
    store.path(published.layers[0].blob.digest).unlink()
    assert not publication.holds(found)


def test_a_step_that_publishes_runs_again_only_where_the_store_has_another_image(
    image, store, run_written
):
    script = 'echo -n done > "$0"'
    step = {"script": script, "asked": {"repo": "localhost/t/none", "base": image},
            "parameters": ["said"],
            "words": ["{{$.outputs.parameters['said'].output_file}}"]}  # fmt: skip
    states = [run_written({"a": step}, cache=True).steps["a"].state for _ in "12"]
    assert states == ["succeeded", "cached"]


def test_a_cache_that_cannot_be_written_fails_no_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "out").mkdir()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        Cache(root).put("a" * 64, tmp_path / "out", {"parameters": {}, "artifacts": {}})
        assert Cache(root).get("a" * 64, tmp_path / "out", {}) is None


def test_another_pipeline_with_the_same_step_takes_its_result(execute, image):
    """Unlike the backend, whose key holds the pipeline's name; what is taken is the same."""

    @dsl.container_component
    def say():
        return dsl.ContainerSpec(image, ["echo"], ["shared by two pipelines"])

    states = []
    for name in ("one", "other"):

        @dsl.pipeline(name=name)
        def pipeline():
            say()

        states.append(execute(pipeline, cache=True).steps["say"].state)
    assert states == ["succeeded", "cached"]
