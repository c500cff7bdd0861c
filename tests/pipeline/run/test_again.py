"""A step of a run is run again with its own inputs, and the run's own outputs stay as they are."""

import shutil

import pytest
from kfp import dsl

from builder import oci
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.sandbox.bubblewrap import Bubblewrap
from pipeline.errors import PipelineError
from pipeline.run import again
from pipeline.run.runner import Volume

SCRIPT = (
    'set -e; cat "$0/f" /claim/own /etc/word; cat "$0/f" /etc/word > "$1"; echo "$2" >> /claim/own'
)


@pytest.fixture
def busy(store, image):
    """Return images of the repository test/busybox that say a word of their own in /etc/word."""

    def make(word):
        below = store.image(image.rpartition("@")[2])
        with store.writing() as (stream, keep):
            entries = [Entry("etc", "dir", 0o755), Entry("etc/word", "file", 0o644, content=word)]
            layer = write_layer(entries, stream)
            keep(layer.blob.digest)
        config = {name: value for name, value in below.config.items() if name != "rootfs"}
        made, documents = oci.assemble(config, (*below.layers, layer))
        store.add_image(documents)
        return made

    return make


@pytest.fixture
def ran(store, image, busy, execute, tmp_path):
    """A run of two steps, of which the second is of another image and reads what the first made."""
    other = f"localhost/test/other@{busy(b'old').digest}"
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim/own").write_text("claim ")

    @dsl.container_component
    def first(text: str, made: dsl.Output[dsl.Dataset]):
        words = 'mkdir "$1" && echo -n "$0 " > "$1/f"'
        return dsl.ContainerSpec(image, ["sh", "-c", words], [text, made.path])

    @dsl.container_component
    def second(one: dsl.Input[dsl.Dataset], text: str, said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(other, ["sh", "-c", SCRIPT], [one.path, said, text])

    from kfp import kubernetes

    @dsl.pipeline(name="again")
    def flow(text: str):
        task = second(one=first(text=text).outputs["made"], text=text)
        kubernetes.mount_pvc(task, "box", "/claim")

    volumes = {"box": Volume(tmp_path / "claim", writable=True)}
    result = execute(flow, volumes=volumes, text="real")
    assert result.state == "succeeded", result.error
    return result


def test_the_new_image_gets_the_same_inputs(ran, store, busy, tmp_path):
    kept = again.last(tmp_path / "runs", "other")
    assert (kept.task.name, kept.run) == ("second", ran.folder)
    step, home = again.run(kept, busy(b"new"), store, Bubblewrap(store))
    assert step.state == "succeeded", step.error
    assert step.outputs == {"said": "real new"}
    assert (home / "log.txt").read_text() == "real claim real\nnew"
    assert ran.steps["second"].outputs == {"said": "real old"}
    assert (ran.folder / "steps/second/out/.parameters/said").read_text() == "real old"
    step, _ = again.run(again.last(tmp_path / "runs", "other"), busy(b"newer"), store,
                        Bubblewrap(store))  # fmt: skip
    assert step.outputs == {"said": "real newer"}


def test_a_step_that_fails_says_so_and_what_is_gone_is_named(ran, store, image, tmp_path):
    kept = again.last(tmp_path / "runs", "other")
    step, home = again.run(kept, store.image(image.rpartition("@")[2]), store, Bubblewrap(store))
    assert step.state == "failed"
    assert "/etc/word" in step.error
    assert "/etc/word" in (home / "log.txt").read_text()
    shutil.rmtree(ran.folder / "steps/first/out")
    with pytest.raises(PipelineError, match=r"the input .*made of second is not in .* any more"):
        again.run(kept, store.image(image.rpartition("@")[2]), store, Bubblewrap(store))


def test_a_stage_that_no_run_had_is_refused(ran, tmp_path):
    with pytest.raises(PipelineError, match=r"no run in .* has a step of train that can be run"):
        again.last(tmp_path / "runs", "train")
    (ran.folder / "steps/second/again.json").write_text('{"format": 0}')
    with pytest.raises(PipelineError, match="another version of plateline; run the package again"):
        again.last(tmp_path / "runs", "other")
