"""The task that does the main job from end to end on this machine."""

from __future__ import annotations

import json as encoder
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import ENGINE_HELP, JOBS_HELP, JSON_HELP, facts, say
from cli.pipeline import execute, finish, make_package, pin_local

# Not the file that `compile` writes: that one may be for a registry.
_PACKAGE = "dist/demo.yaml"


@command(
    help={
        "plate": "the folder of a real plate's images (without it a small one is simulated)",
        "layout": "a known layout, or a TOML file, also one in the plate's folder",
        "engine": ENGINE_HELP,
        "jobs": JOBS_HELP + ", and steps to run",
        "no-cache": "run every step again",
        "json": JSON_HELP,
    }
)
def demo(
    plate: str = "",
    layout: str = "bbbc014",
    engine: str = "auto",
    jobs: int = 2,
    no_cache: bool = False,
    json: bool = False,
) -> None:
    """Build the images, compile, run prepare to package on a plate, and ask the packaged model."""
    from builder.sandbox.engines import choose
    from builder.store import Store, default_root
    from pipeline.definition import plates
    from pipeline.serving import function

    times: dict[str, float] = {}

    def done(what: str, since: float) -> float:
        times[what] = round(time.monotonic() - since, 2)
        return time.monotonic()

    sandbox = choose(engine, Store.open())  # where none runs, nothing need be built
    mark = time.monotonic()
    say("building the images")
    pinned = pin_local(jobs)
    mark = done("build", mark)
    say("compiling the pipeline")
    compiled = make_package(pinned, 0, "registry", _PACKAGE)
    mark = done("compile", mark)
    prepare = pinned.built["prepare"].image
    if plate:
        folder = Path(plate)
    else:
        say("drawing a synthetic plate")
        folder = plates.synthetic_plate(sandbox, prepare, default_root().parent / "plates")
        mark = done("synthetic plate", mark)
    parameters: dict[str, Any] = {
        "plate_layout": layout, "artifact_repo": "localhost/plateline/artifact",
    }  # fmt: skip
    # Simulated cells are told apart at once: one pass is enough, and the demo is short.
    if not plate:
        parameters["epochs"] = 1
    result = execute(
        Path(_PACKAGE), pinned.store, parameters=parameters, plate=str(folder),
        engine=engine, jobs=jobs, use_cache=not no_cache,
    )  # fmt: skip
    steps = {step.name.rpartition(".")[2]: step for step in result.steps.values()}
    for step in result.steps.values():
        if step.state != "skipped":
            times[step.title] = round(step.seconds, 2)
    if result.state != "succeeded":
        finish(result)
    mark = time.monotonic()
    image = str(steps["package"].outputs["image"])
    with tempfile.TemporaryDirectory() as scratch:
        examples = plates.example_tiles(
            sandbox, prepare, _path(result, steps["prepare"], "tiles"), Path(scratch)
        )
        with function.serving(sandbox, pinned.store.image(image.partition("@")[2])) as url:
            answers = {
                file.stem: function.classify(url, file.read_bytes()) | {"expected": name}
                for name, file in examples.items()
            }
    done("classify", mark)
    metrics = _metrics(result, steps["validate"])
    # The artifact's own name has no suffix, which a browser needs.
    report = result.folder / "report.html"
    shutil.copyfile(_path(result, steps["validate"], "report"), report)
    found = {
        "images": {
            name: {"digest": b.image.digest, "size": b.image.size}
            for name, b in pinned.built.items()
        },
        "package": compiled.digest,
        "metrics": metrics,
        "answers": answers,
        "report": str(report),
        "page": str(result.page),
        "function_image": image,
        "seconds": times,
    }
    facts(found, _rows(found), as_json=json)


def _path(result: Any, step: Any, artifact: str) -> Path:
    return Path(result.path(step.artifacts[artifact][0]["uri"]))


def _metrics(result: Any, step: Any) -> dict[str, Any]:
    """Return validate's metrics.json: what the gate saw, a model at a time."""
    text = (_path(result, step, "results") / "metrics.json").read_text(encoding="utf-8")
    return dict(encoder.loads(text))


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("what", "result")]
    rows += [
        (f"image {name}", f"{image['digest']}  {image['size'] / 1e6:.1f} MB")
        for name, image in found["images"].items()
    ]
    rows.append(("package", found["package"]))
    for fold, model in found["metrics"]["models"].items():
        for level in ("well", "tile"):
            right = sum(row[n] for n, row in enumerate(model[level]["confusion"]))
            total = sum(map(sum, model[level]["confusion"]))
            value = f"{right} of {total} right, weighted F1 {model[level]['weighted_f1']:.3f}"
            rows.append((f"held-out {level}s {fold}", value))
    rows += [
        (f"tile {name}", f"{a['class']}, probability {a['probability']:.3f}; is {a['expected']}")
        for name, a in found["answers"].items()
    ]
    rows += [
        ("function image", found["function_image"]),
        ("report", found["report"]),
        ("run", found["page"]),
        ("seconds", ", ".join(f"{name} {time:.1f}" for name, time in found["seconds"].items())),
    ]
    return rows
