"""A bake file for BuildKit: the same recipes, the contexts they name as folders of the store.

Source: https://docs.docker.com/build/bake/reference/. Folders, since every driver of BuildKit takes
them; the engine's own does not know OCI image layouts unless it keeps its images in containerd.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builder import oci
from builder.build.evaluate import CONTEXTS
from builder.build.make import Builder, ignore
from builder.build.plan import ImagePlan, LayerStep
from builder.build.workspace import Target, Workspace
from builder.dockerfile.copying import normal
from builder.inspect import graph
from builder.oci import canonical, layer
from builder.oci.entry import Entry
from builder.sandbox.unpack import image_entries, unpacked
from builder.store import Store, roots


def bake(workspace: Workspace, store: Store, names: Sequence[str] = (), jobs: int = 2) -> bytes:
    """Build what the recipes of `names` (all without names) copy whole, and return the file.

    It is to be used in the workspace's root, on a machine that has the store. What it points at is
    kept there under names that begin with `bake`. Raises BuilderError.
    """
    needs = graph.needs(workspace, names)
    wanted = graph.with_needs(needs, names or list(workspace.targets))
    contexts: dict[str, dict[str, str]] = {}
    with store.in_use():
        builder = Builder(workspace, store, jobs, ignore, None, need_layers=True)
        for name, plan in builder.plans(wanted).items():
            contexts[name] = {below: f"target:{below}" for below in sorted(needs[name])}
            found = _contexts(workspace.target(name), builder, plan)
            contexts[name] |= {context: str(folder) for context, folder in found}
    return document(workspace, contexts)


def document(workspace: Workspace, contexts: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return the bake file of the targets that `contexts` has, as JSON; pure."""
    targets = {
        name: {
            "context": ".",
            "dockerfile": workspace.target(name).recipe.path,
            "contexts": dict(named),
            "platforms": ["linux/amd64"],
            "tags": [f"plateline/{name}"],
        }
        for name, named in contexts.items()
    }
    default = {"targets": sorted(targets)}
    return canonical.dumps({"group": {"default": default}, "target": targets})


def _contexts(target: Target, builder: Builder, plan: ImagePlan) -> Iterator[tuple[str, Path]]:
    """Yield the builder's own contexts and their folders, those that the recipe copies from."""
    seen: set[str] = set()
    for stage in _stages(target, plan):
        lines = {step.line: step.created_by for step in reversed(stage.layers)}
        for line, text in sorted(lines.items()):
            context = next((c for c in CONTEXTS if text.startswith(f"COPY --from={c} ")), "")
            if context and context not in seen:
                seen.add(context)
                yield context, _folder(builder, stage, line, f"bake {target.name} {context}")


def _stages(target: Target, plan: ImagePlan | None) -> Iterator[ImagePlan]:
    """Yield the plans of all stages of one recipe, what they stand on first."""
    if plan and plan.name == target.name:
        for below in (plan.base, *plan.needs):
            yield from _stages(target, below)
        yield plan


def _destination(plan: ImagePlan, step: LayerStep) -> str:
    """Return where a COPY puts its files, relative to the root."""
    text = step.created_by
    workdir = (plan.config.get("config") or {}).get("WorkingDir") or "/"
    return normal(posixpath.join(workdir, text.partition(" # ")[0].split()[-1]))


def _folder(builder: Builder, plan: ImagePlan, line: int, name: str) -> Path:
    """Return a folder with what the instruction on `line` copied, and keep it as `name`."""
    store, whole = builder.image_of(plan)
    steps = [step for step in plan.layers if step.line == line]
    own = whole.layers[-len(plan.layers) :]
    layers = [made for made, step in zip(own, plan.layers, strict=True) if step.line == line]
    made = _moved(store, oci.assemble({}, tuple(layers))[0], _destination(plan, steps[0]))
    image, documents = oci.assemble({"architecture": "amd64", "os": "linux"}, (made,))
    store.add_image(documents)
    roots.keep(store, name, image.manifest)
    return unpacked(store, made)


def _moved(store: Store, image: oci.Image, folder: str) -> oci.Layer:
    """Return one layer with what `image` has below `folder` at its root ("" for all of it)."""
    action = {"below": folder, "of": [made.diff_id for made in image.layers],
              "format": layer.FORMAT}  # fmt: skip
    key = canonical.sha256(canonical.dumps(action)).removeprefix("sha256:")
    if known := store.get_result(key):
        found = oci.Layer(diff_id=known["diff_id"], blob=oci.Descriptor.from_json(known["blob"]))
        if store.has(found.blob):
            return found
    top = f"{folder}/" if folder else ""
    every = image_entries(store, image)
    entries = [_below(entry, top) for entry in every if entry.path.startswith(top)]
    with store.writing() as (stream, keep):
        made = layer.write_layer(entries, stream)
        keep(made.blob.digest)
    store.put_result(key, {"diff_id": made.diff_id, "blob": made.blob.to_json()})
    return made


def _below(entry: Entry, top: str) -> Entry:
    target = entry.target.removeprefix(top) if entry.kind == "hardlink" else entry.target
    return replace(entry, path=entry.path.removeprefix(top), target=target)
