"""Components that are written in Python with the KFP SDK run in an image that is made here."""

import shutil
from pathlib import Path

import pytest
from kfp import compiler, dsl

from builder.build.lock import lock
from builder.build.make import build, pins
from builder.build.workspace import Workspace
from builder.store import Store, default_root
from pipeline.run.runner import run
from pipeline.spec.package import load

ROOT = Path(__file__).parents[3]
FILES = {
    "Dockerfile": "FROM base\nCOPY --from=debian / /\nCOPY --from=wheels / /opt/venv/\n",
    # A component of Python alone starts with `sh`, `mktemp` and `printf`.
    "debian.in": "dash\ncoreutils\n",
    "requirements.in": "kfp==2.17.0\n",
    "sdists.in": "kfp-server-api==2.17.3\n",
}


@pytest.mark.slow
def test_a_component_of_the_sdk_runs_in_an_image_that_is_made_here(tmp_path: Path) -> None:
    folder = tmp_path / "workspace/stages"
    shutil.copytree(ROOT / "stages/base", folder / "base", symlinks=True)
    (folder / "sdk").mkdir()
    for name, text in FILES.items():
        (folder / "sdk" / name).write_text(text)
    store = Store(default_root())
    lock(Workspace.load(folder.parent), ["sdk"])
    image = pins(build(Workspace.load(folder.parent), store, ["sdk"]), "localhost/test")["sdk"]

    @dsl.component(base_image=image, install_kfp_package=False)
    def join(words: list, out: dsl.Output[dsl.Dataset]) -> str:
        with open(out.path, "w") as stream:  # noqa: PTH123 - the SDK takes this function alone
            stream.write("\n".join(words))
        out.metadata["words"] = len(words)
        return "-".join(words)

    @dsl.pipeline(name="sdk")
    def pipeline(words: list = ["a", "b"]) -> str:  # noqa: B006 - the SDK reads it
        return join(words=words).outputs["Output"]

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    done = run(
        load(path), store, parameters={}, volumes={}, secrets={}, runs=tmp_path / "runs",
        engine="bubblewrap", jobs=1,
    )  # fmt: skip
    assert done.state == "succeeded", done.error
    assert done.outputs == {"Output": "a-b"}
    (made,) = done.steps["join"].artifacts["out"]
    assert made["metadata"] == {"words": 2}
