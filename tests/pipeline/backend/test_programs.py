"""The programs are files that can be executed, or the entry points of images by digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import oci
from builder.oci import layer
from builder.oci.entry import Entry
from pipeline.backend.programs import bring
from pipeline.errors import PipelineError


def no_pull(reference):
    raise AssertionError(f"asked a registry for {reference}")


@pytest.fixture
def of_kfp(store, tmp_path):
    """Return how to keep an image with a program, and its name."""

    def do(entrypoint, *entries):
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\necho driver\n")
        entries = entries or (Entry("bin/driver", "file", 0o755, content=program),)
        with store.writing() as (stream, keep):
            made = layer.write_layer(entries, stream)
            keep(made.blob.digest)
        config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": entrypoint}}
        image, documents = oci.assemble(config, (made,))
        store.add_image(documents)
        return f"localhost/kfp-driver@{image.digest}"

    return do


def test_an_image_by_digest_gives_its_entry_point(of_kfp, store):
    name = of_kfp(["/bin/driver"])
    found = bring(name, name, store, no_pull)
    assert found.driver == found.launcher
    assert found.driver.read_text() == "#!/bin/sh\necho driver\n"


def test_an_image_that_is_not_here_is_pulled(of_kfp, store):
    name = of_kfp(["/bin/driver"])
    image, asked = store.image(name.partition("@")[2]), []
    absent = f"localhost/kfp-driver@sha256:{'0' * 64}"
    bring(absent, name, store, lambda reference: asked.append(str(reference)) or image)
    assert asked == [absent]


@pytest.mark.parametrize("entrypoint", [None, ["/bin/sh"], ["/etc/../../x"], ["/bin/link"]])
def test_an_image_without_a_program_is_refused(entrypoint, of_kfp, store):
    name = of_kfp(entrypoint, Entry("bin/link", "symlink", 0o777, target="/bin/true"))
    with pytest.raises(PipelineError):
        bring(name, name, store, no_pull)


@pytest.mark.parametrize(
    ("driver", "launcher", "message"),
    [("", "/bin/true", "--driver"), ("/bin/true", "", "--launcher"),
     ("/etc/passwd", "/bin/true", "not a program"), ("/not/there", "/bin/true", "not a program")],
)  # fmt: skip
def test_what_is_no_program_is_refused_by_its_option(driver, launcher, message, store):
    with pytest.raises(PipelineError, match=message):
        bring(driver, launcher, store, no_pull)


def test_a_file_is_taken_as_it_is(store):
    found = bring("/bin/true", "/bin/true", store, no_pull)
    assert found.driver == Path("/bin/true").resolve()
