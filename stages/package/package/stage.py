"""The package stage: validated models and the function image in, a pinned servable image out."""

from __future__ import annotations

from common.errors import StageError
from common.stage_io import StageIO

from builder.errors import BuilderError
from builder.reference import Reference
from builder.store import Store

from .local import append

STACK = """\
version: 1.0
provider:
  name: openfaas
functions:
  {name}:
    image: {image}
    skip_build: true
    environment:
      exec_timeout: 30s
      read_timeout: 35s
      write_timeout: 35s
"""


def package(task: StageIO) -> None:
    """Append the models, and put out the image's pinned name, stack.yaml and digests.md."""
    builder = task.parameter("builder", str, "registry")
    if builder != "registry":
        raise StageError(f"builder={builder} is not available in this version; use registry")
    if task.parameter("artifact_repo", str, ""):
        raise StageError("artifact_repo is not available in this version; leave it empty")
    try:
        base = Reference.parse(task.parameter("function_image", str))
        target = Reference.parse(task.parameter("model_repo", str))
        if not base.digest:
            raise StageError(f"the function image {base} is not pinned; name it by @sha256:…")
        if not (base.local and target.local):
            raise StageError(
                f"packaging {base} to {target} needs a registry, which this version of the "
                "stage cannot write to; use localhost/… and push from the store"
            )
        image = append(Store.open(), base, task.input("servable").path)
    except BuilderError as error:
        raise StageError(str(error)) from None
    pinned = str(Reference(target.host, target.repository, digest=image.digest))
    task.set_parameter("image", pinned)
    task.set_parameter("artifact", "")
    name = target.repository.rpartition("/")[2]
    task.output("stack").write_text(STACK.format(name=name, image=pinned), encoding="utf-8")
    task.output("digests").write_text(
        f"| what | digest |\n|---|---|\n| image | `{pinned}` |\n| base | `{base}` |\n",
        encoding="utf-8",
    )
    print(f"packaged {pinned}", flush=True)
