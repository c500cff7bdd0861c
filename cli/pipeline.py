"""The tasks about the pipeline: compile it, run it, look at a plate before it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import answers, inputs
from cli import policy as policies
from cli.command import command
from cli.images import build, build_indexed, in_registry
from cli.output import (
    COMPRESSION_HELP,
    ENGINE_HELP,
    INSECURE_HELP,
    JOBS_HELP,
    JSON_HELP,
    PLATFORM_HELP,
    REGISTRY_HELP,
    ROOT,
    facts,
    say,
    table,
    told,
)
from cli.policy import POLICY_HELP

GPUS_HELP = "GPUs a step of train and validate, in the images train-cuda12 and validate-cuda12"
PACKAGE, OF_PLATES = "dist/plateline.yaml", "dist/plateline-plates.yaml"
RUNS = "runs"


@dataclass(frozen=True)
class Pinned:
    """The built targets, each one's pinned name, and the store.

    `built` has for each target a Built, or the Indexed of one for several platforms.
    """

    store: Any
    workspace: Any
    built: Mapping[str, Any]
    pins: Mapping[str, str]


def pipeline_targets(pipeline: str = "plateline", gpus: int = 0) -> str:
    """Return the targets that a pipeline runs; raises PipelineError for one that is not there."""
    from builder.build.workspace import Workspace
    from pipeline.definition.stages import targets

    return ",".join(targets(Workspace.load(ROOT).every, pipeline, gpus))


def pin_local(
    jobs: int,
    targets: Sequence[str] = (),
    platforms: Sequence[Any] = (),
    compression: str = "gzip",
) -> Pinned:
    """Build all that the pipeline runs, or `targets`, and name it as of this machine's store.

    It is for `platforms`, several under an index each.
    """
    from builder.build.make import pins

    wanted = ",".join(targets) or pipeline_targets()
    if len(platforms) > 1:
        workspace, store, built = build_indexed(wanted, platforms, jobs, compression=compression)
    else:
        platform = next(iter(platforms), None)
        workspace, store, built = build(wanted, jobs, platform=platform, compression=compression)
    return Pinned(store, workspace, built, pins(built, "localhost/plateline"))


def pin_in_registry(
    registry: str,
    jobs: int,
    *,
    insecure: bool = False,
    targets: Sequence[str] = (),
    platforms: Sequence[Any] = (),
    compression: str = "gzip",
) -> Pinned:
    """Name the images that `registry` holds for this source; raises PipelineError for one it lacks.

    What was pushed for the same action keys is taken without a layer of it. Without `targets` it is
    what the pipeline runs, for `platforms`, several under an index each.
    """
    from builder.build.make import pins
    from builder.platform import NATIVE
    from pipeline.errors import PipelineError

    wanted = ",".join(targets) or pipeline_targets()
    platforms = platforms or (NATIVE,)
    made, gone = {}, []
    with in_registry(registry, insecure=insecure) as cache:
        for platform in platforms:
            cache.found.clear()  # it has names alone, and every platform has the same
            workspace, store, made[platform] = build(
                wanted, jobs, cache=cache, need_layers=False, platform=platform,
                compression=compression,
            )  # fmt: skip
            gone += _gone(cache, made[platform], cache.found)
        built = made[platforms[0]]
        if len(platforms) > 1:
            from builder.build.index import index

            built = index(store, made, ROOT)
            gone = gone or _gone(cache, built, ())
    if gone:
        flag = f" --platform {','.join(p.name for p in platforms)}" * (platforms != (NATIVE,))
        flag += f" --compression {compression}" * (compression != "gzip")
        names = list(dict.fromkeys(pin.partition("@")[0].rpartition("/")[2] for pin in gone))
        if any(name in workspace.variants for name in names):  # pushed where they are named
            flag += f" --targets {','.join(names)}"
        raise PipelineError(
            f"{registry} lacks {', '.join(gone)}; run "
            f"`invoke push-images --registry {registry}{flag}`"
        )
    return Pinned(store, workspace, built, pins(built, registry.rstrip("/")))


def _gone(cache: Any, built: Mapping[str, Any], found: Collection[str]) -> list[str]:
    """Return the pinned names of what the registry does not have; `found` was there just now."""
    from builder.registry.client import lacking

    asked = {f"{cache.path}/{name}": b.digest for name, b in built.items() if name not in found}
    gone = lacking(cache.registry, asked)
    return [f"{cache.registry.host}/{path}@{asked[path]}" for path in gone]


def refuse_docker(builder: str, platforms: Sequence[Any]) -> None:
    """Raise PipelineError where a Docker Engine is to build a servable image for several platforms.

    It builds for its own processor alone.
    """
    from pipeline.errors import PipelineError

    if builder == "docker" and len(platforms) > 1:
        raise PipelineError(
            "--builder docker makes the servable image for the Docker Engine's own processor; "
            "leave it out, or give one --platform"
        )


SETTINGS_HELP = "the settings file with the table [cluster] (plateline.toml, where it is there)"


def settings_path(path: str) -> str:
    """Return the settings file of that name; without a name plateline.toml, there or not."""
    from pipeline.definition.cluster import FILE

    return str(Path(path).absolute() if path else ROOT / FILE)


def cluster_settings(path: str) -> Any:
    """Return the table [cluster] of a settings file; without a name, of plateline.toml if any."""
    from pipeline.definition.cluster import Cluster, read

    found = Path(settings_path(path))
    return Cluster() if not path and not found.exists() else read(found)


def hold(policy: Any, pinned: Pinned, *, insecure: bool = False) -> None:
    """Hold the images that a package is to run against a policy; raises BuilderError."""
    from builder.policy.evidence import of_checkout

    own = of_checkout(pinned.workspace, pinned.store, pinned.built)
    images = [
        f"{pinned.pins[name].partition('@')[0]}@{image.digest}"
        for name, made in pinned.built.items() for image in made.named.images
    ]  # fmt: skip
    policies.check(policy, images, own=own, insecure=insecure)


def make_package(
    pinned: Pinned, gpus: int, builder: str, output: str, settings: str = "",
    pipeline: str = "plateline", plates_at_once: int = 8,
) -> Any:  # fmt: skip
    """Compile with the pinned images and write the package to `output`."""
    from pipeline.release.materials import collect

    made_from = collect(pinned.workspace, pinned.built)
    return write_package(
        pinned.pins, made_from, pinned.store, gpus, builder, output, settings, pipeline,
        plates_at_once,
    )  # fmt: skip


def write_package(
    pins: Mapping[str, str], made_from: Any, store: Any, gpus: int, builder: str, output: str,
    settings: str, pipeline: str, plates_at_once: int,
) -> Any:  # fmt: skip
    """Compile with the images `pins`, which were `made_from` a Provenance, and write the package.

    Returns it as `Compiled`.
    """
    from pipeline.definition.pipelines import definition
    from pipeline.definition.settings import Settings
    from pipeline.spec.compile import compile_package, remember, write

    fixed = Settings(gpus, builder, cluster_settings(settings), plates_at_once)
    chosen = definition(fixed, pipeline)
    compiled = compile_package(chosen, pins, made_from, store)
    write(compiled.data, Path(output))
    remember(store, ROOT, compiled.digest)
    return compiled


@command(
    help={
        "pipeline": "plateline (one plate to a model), plateline-plates (many to a model), or "
        "plateline-score (plates to hits)",
        "output": "the file to write (dist/ and the pipeline's name)",
        "registry": REGISTRY_HELP,
        "allow-local": "pin the images of this machine's store, for a run on this machine",
        "gpus": GPUS_HELP,
        "plates-at-once": "plates of a list that are worked on at the same time",
        "builder": "who builds the servable image: registry (no daemon) or docker (its socket)",
        "platform": f"{PLATFORM_HELP}; of both, the package pins an index",
        "settings": SETTINGS_HELP,
        "compression": COMPRESSION_HELP,
        "policy": POLICY_HELP,
        "insecure": INSECURE_HELP,
        "jobs": JOBS_HELP,
        "json": JSON_HELP,
    }
)
def compile(  # noqa: A001 - the task's name
    pipeline: str = "plateline",
    output: str = "",
    registry: str = "",
    allow_local: bool = False,
    gpus: int = 0,
    plates_at_once: int = 8,
    builder: str = "registry",
    platform: str = "",
    settings: str = "",
    compression: str = "gzip",
    policy: str = "",
    insecure: bool = False,
    jobs: int = 2,
    json: bool = False,
) -> None:
    """Compile a pipeline with every image pinned by digest, and print the package's digest."""
    from builder.platform import parse
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.spec.provenance import Provenance

    started = time.monotonic()
    registry = registry or ("" if allow_local else os.environ.get("PLATELINE_REGISTRY", ""))
    if not registry and not allow_local:
        raise PipelineError(
            "no registry was named, and a cluster cannot pull from this machine's store; "
            "give --registry HOST/PREFIX, or --allow-local for `invoke run` on this machine"
        )
    platforms = parse(platform)
    refuse_docker(builder, platforms)
    asked = policies.read(policy)
    # What is known of the images, whatever the settings are. Another --jobs looks at them again.
    how = (registry, insecure, pipeline, gpus, compression, jobs)
    part = ("images", *how, *(each.name for each in platforms))
    known = None if asked else answers.recalled(part)
    if known:
        pins, made_from, store = known[0], Provenance(*known[1]), Store.open()
    else:
        status = answers.git_status()  # while the rest is being loaded
        from pipeline.release.materials import collect

        targets = pipeline_targets(pipeline, gpus).split(",")
        pinned = (
            pin_in_registry(
                registry, jobs, insecure=insecure, targets=targets, platforms=platforms,
                compression=compression,
            )
            if registry
            else pin_local(jobs, targets, platforms, compression)
        )  # fmt: skip
        if asked:
            hold(asked, pinned, insecure=insecure)
        git, pins, store = status(), pinned.pins, pinned.store
        made_from = collect(pinned.workspace, pinned.built, status=git)
        if not asked:
            _keep_images(part, pinned, made_from, git, registry, insecure=insecure)
    output = output or f"dist/{pipeline}.yaml"
    compiled = write_package(
        pins, made_from, store, gpus, builder, output, settings, pipeline, plates_at_once
    )
    found = {
        "package": output,
        "digest": compiled.digest,
        "pins": dict(pins),
        "kfp_imported": "kfp" in sys.modules,
    }
    rows = [("what", "digest")]
    rows += list(pins.items())
    rows.append((output, compiled.digest))
    text, note = told(found, rows, as_json=json), ", unchanged" if compiled.cached else ""
    print(text)
    say(f"{time.monotonic() - started:.2f} s{note}")
    if compiled.cached and not asked:
        blobs, results = inputs.used(store)
        copied = {str(Path(output).absolute()): str(store.path(compiled.digest))}
        answers.keep(
            text, upon=part, inputs=[*blobs, settings_path(settings)], results=results,
            copies=copied, note=note,
        )  # fmt: skip


def _keep_images(
    part: answers.Part, pinned: Pinned, made_from: Any, git: bytes | None, registry: str, *,
    insecure: bool,
) -> None:  # fmt: skip
    """Keep pins and Provenance for a compilation with other settings, if nothing was made."""
    from dataclasses import astuple

    images = {name: list(made.images.values()) for name, made in pinned.built.items()}
    if git is None or not all(len(of) == 1 and of[0].cached for of in images.values()):
        return
    there = (registry, insecure, {n: made.digest for n, made in pinned.built.items()})
    inputs.keep(
        (dict(pinned.pins), astuple(made_from)), pinned.workspace, pinned.store,
        part=part, git=git, there=there if registry else None,
    )  # fmt: skip


def pairs(values: list[str], option: str) -> dict[str, str]:
    """Return name -> value of `name=value` words; raises PipelineError for another one."""
    from pipeline.errors import PipelineError

    found = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name:
            raise PipelineError(f"--{option} {value}: write --{option} name=value")
        found[name] = rest
    return found


def pulled(image: str, store: Any, registries: Any, jobs: int, *, later: bool = False) -> Any:
    """Return an image from its registry; None for one that only this machine's store can have.

    With `later` its layers are fetched by whoever needs them, each when it is needed.
    """
    from builder.oci.reference import Reference
    from builder.registry.pull import known, pull

    reference = Reference.parse(image)
    if reference.local:
        return None
    if later:
        say(f"{image}: its layers will be fetched when a step needs them")
        return known(store, registries.at(reference.host), reference)
    say(f"pulling {image}")
    return pull(store, registries.at(reference.host), reference, jobs=jobs)


def runs_folder(named: str) -> Path:
    """Return where runs are written: the named folder, that of the environment, or `runs/`."""
    return Path(named or os.environ.get("PLATELINE_RUNS") or RUNS)


def check_programs(engine: str, driver: str, launcher: str) -> None:
    """Raise PipelineError for KFP's programs with an engine that does not run them."""
    from pipeline.errors import PipelineError

    if engine != "kfp" and (driver or launcher):
        raise PipelineError("--driver and --launcher are of --engine kfp; give that as well")


def execute(
    package: Path,
    store: Any,
    *,
    parameters: Mapping[str, Any],
    plate: str = "",
    plates: str = "",
    volumes: Mapping[str, Path] | None = None,
    secrets: Mapping[str, Path] | None = None,
    engine: str = "auto",
    jobs: int = 2,
    insecure: bool = False,
    use_cache: bool = True,
    network: bool = False,
    gpus: bool = False,
    runs: str = "",
    trust: bool = False,
    driver: str = "",
    launcher: str = "",
    policy: str = "",
    signatures: Any = None,
) -> Any:
    """Run a package on this machine and return its Result; images it lacks come from registries.

    One that this checkout did not compile runs only where it is trusted or the user agrees, and one
    whose images do not keep to `policy`, a file, does not run. `signatures` has those of its images
    instead of their registries.
    """
    from builder.registry.client import Registries
    from pipeline.definition.claims import IMAGES_CLAIM, WORKDIR_CLAIM
    from pipeline.definition.plates import layout_value, listed_plates
    from pipeline.errors import PipelineError
    from pipeline.run import consent, places
    from pipeline.run.progress import live
    from pipeline.run.runner import Volume, load, run
    from pipeline.spec.compile import compiled_here
    from pipeline.spec.package import arguments

    asked = policies.read(policy)
    registries = Registries(insecure=insecure, notice=say)
    check_programs(engine, driver, launcher)
    if gpus and engine == "kfp":
        raise PipelineError("--gpus: the engine kfp is handed no GPUs; give another engine")

    # A node of a cluster may reach no registry, and only this process was told of plain HTTP.
    later = engine not in ("kfp", "slurm") and not insecure

    def find(image: str) -> Any:
        return pulled(image, store, registries, jobs, later=later)

    loaded = load(package)
    folders = {
        name: Volume(folder, writable=name == WORKDIR_CLAIM)
        for name, folder in (volumes or {}).items()
    }
    given = dict(parameters)
    if "plate_layout" in given:
        given["plate_layout"] = layout_value(given["plate_layout"], plate)
    if plate:
        if not Path(plate).is_dir():
            raise PipelineError(f"the plate {plate} is not a folder; name the one with its images")
        folders[IMAGES_CLAIM] = Volume(Path(plate).resolve())
        given.setdefault("plate_path", "")
    if plates:
        root, given["plates"] = listed_plates(plates)
        folders[IMAGES_CLAIM] = Volume(root)
    place = runs_folder(runs).absolute()
    folders.setdefault(WORKDIR_CLAIM, Volume(place / "workspace", writable=True))
    if asked:
        _hold_package(asked, loaded, arguments(loaded, given), insecure=insecure)
    publish = None
    if not compiled_here(store, ROOT, loaded.digest):
        values = arguments(loaded, given)
        if not trust:
            from builder.signing.keys import trusted  # cryptography costs time

            listed = consent.grants(
                loaded, values, folders, secrets or {}, network=network or engine == "kfp",
                gpus=gpus, signed=consent.signers(loaded, signatures or registries, trusted(ROOT)),
            )  # fmt: skip
            consent.ask(package, listed, _terminal())
        publish = consent.published(loaded, values)
    try:
        places.make_private(place)
        if place == Path(RUNS).absolute():  # another folder may be there for others too
            place.chmod(0o700)
        places.make_private(place / "workspace")
    except OSError as error:
        raise PipelineError(
            f"making {place / 'workspace'} failed ({error.strerror}); {places.advice(error)}"
        ) from None
    with registries, store.in_use(), live(sys.stderr) as progress:
        if engine == "kfp":
            from pipeline.backend import programs, runner

            return runner.run(
                loaded, store, programs.bring(driver, launcher, store, find),
                parameters=given, volumes=folders, secrets=secrets or {}, runs=place, jobs=jobs,
                publish=publish, use_cache=use_cache, find_image=find, progress=progress, say=say,
            )  # fmt: skip
        return run(
            loaded, store, parameters=given, volumes=folders, secrets=secrets or {},
            runs=place, engine=engine, jobs=jobs, progress=progress,
            find_image=find,
            use_cache=use_cache, network=network, gpus=gpus, publish=publish,
        )  # fmt: skip


def _hold_package(policy: Any, package: Any, values: Mapping[str, Any], *, insecure: bool) -> None:
    """Hold every image that a package names, or is given as a parameter, against a policy."""
    from builder.oci.reference import Reference
    from builder.policy.evidence import of_checkout
    from pipeline.definition.stages import MODEL, PIPELINES
    from pipeline.spec.kubernetes import GPU, accelerator
    from pipeline.spec.package import PINNED, references, strings

    given = filter(PINNED.fullmatch, strings(list(values.values())))
    images = sorted({*references(package), *given})
    own = {}
    if any(Reference.parse(image).local for image in images):
        # They were compiled here with --allow-local, so this checkout can say what they are.
        executors = package.spec["deploymentSpec"].get("executors", {}).values()
        gpus = any(accelerator(executor.get("container", {}))[0] == GPU for executor in executors)
        name = package.name if package.name in PIPELINES else MODEL
        compiled = pipeline_targets(name, int(gpus))
        own = of_checkout(*build(compiled, 2, need_layers=False))
    policies.check(policy, images, own=own, insecure=insecure)


def _terminal() -> Callable[[str], str] | None:
    """Return how to ask the user; None in CI and without a terminal."""
    if os.environ.get("CI") or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def answer(question: str) -> str:
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()

    return answer


@command(
    positional=["file"],
    repeated=["param", "secret", "volume"],
    help={
        "file": f"the compiled package ({PACKAGE}; with --plates {OF_PLATES}), or a FILE.tar of "
        "mirror-release: all images come out of it",
        "param": "a parameter, name=value; once for each",
        "plate": "the folder of a plate's images",
        "plates": "a list of plates (CSV, TSV, Excel, JSON), or a quoted pattern: 'screen/P*'",
        "secret": "name=DIR with a file for each key; once for each",
        "volume": "claim=DIR; once for each",
        "engine": f"{ENGINE_HELP}; or kfp: KFP's own two programs run the steps by bubblewrap; or "
        "slurm: each step is a job of Slurm, by bubblewrap on its node (docs/slurm.md)",
        "driver": "for --engine kfp: KFP's driver, a file or KFP's image by digest",
        "launcher": "for --engine kfp: KFP's launcher, a file or KFP's image by digest",
        "jobs": "how many steps to run, or to have in Slurm's queue, at the same time",
        "no-cache": "run every step again",
        "trust": "run a package of somebody else, with all that it asks for, without a question",
        "gpus": "hand this machine's GPUs to the steps that ask for one (docs/gpu.md)",
        "network": "give the network to every step, not only to those that ask for it",
        "runs": f"where to write the run's folder ({RUNS}, or $PLATELINE_RUNS)",
        "policy": POLICY_HELP,
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def run(
    file: str = "",
    param: list[str] = [],  # noqa: B006 - invoke reads it as a list
    plate: str = "",
    plates: str = "",
    secret: list[str] = [],  # noqa: B006
    volume: list[str] = [],  # noqa: B006
    engine: str = "auto",
    jobs: int = 2,
    no_cache: bool = False,
    trust: bool = False,
    network: bool = False,
    gpus: bool = False,
    runs: str = "",
    policy: str = "",
    insecure: bool = False,
    driver: str = "",
    launcher: str = "",
    json: bool = False,
) -> None:
    """Run a compiled package on this machine, in the very images whose digests it holds."""
    from builder.store import Store
    from pipeline.run.page import document

    store = Store.open()
    chosen = file or (OF_PLATES if plates else PACKAGE)
    with _unpacked(chosen, store) as (package, signatures):
        result = execute(
            package, store, parameters=pairs(param, "param"), plate=plate, plates=plates,
            volumes={name: Path(folder) for name, folder in pairs(volume, "volume").items()},
            secrets={name: Path(folder) for name, folder in pairs(secret, "secret").items()},
            jobs=jobs, insecure=insecure, use_cache=not no_cache, trust=trust, network=network,
            gpus=gpus,
            runs=runs, driver=driver, launcher=launcher, policy=policy, signatures=signatures,
            engine=engine,
        )  # fmt: skip
    facts(document(result), run_rows(result), as_json=json)
    finish(result)


@contextmanager
def _unpacked(file: str, store: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the package `file` and None; of a release in a tar, also what signs its images.

    The store has these images then.
    """
    from builder.mirror.layout import is_layout

    if not is_layout(file):
        yield Path(file), None
        return
    from pipeline.release import mirror

    with mirror.opened(Path(file)) as (layout, which):
        data, digest = mirror.load(layout, which, store)
        say(f"release {digest}, out of {file}")
        yield store.path(store.add(data).digest), layout


def run_rows(result: Any) -> list[tuple[str, ...]]:
    """Return the table of a run's steps."""
    from pipeline.run.page import memory

    rows = [("step", "state", "seconds", "memory", "")]
    return rows + [
        (s.title, s.state, f"{s.seconds:.1f}", memory(s), s.error) for s in result.steps.values()
    ]


def finish(result: Any) -> None:
    """Say where the run's page is and how it ended; exit with 1 where it did not succeed."""
    for note in result.notes:
        say(f"note: {note}")
    say(f"{result.state} after {result.seconds:.1f} s: {result.page}")
    if result.state != "succeeded":
        say(f"error: {result.error}")
        raise SystemExit(1)


@command(
    help={
        "folder": "the folder of the plate's images",
        "layout": "a known layout or a TOML file; without it, those that fit are said",
        "engine": ENGINE_HELP,
        "json": JSON_HELP,
    },
)
def check_plate(folder: str, layout: str = "", engine: str = "auto", json: bool = False) -> None:
    """Print what a layout understands of a plate's folder: each well, its role and its dose.

    Without a layout it says which microscope wrote the folder and how it knows, and which layouts
    fit; where none does, it prints the beginning of one.
    """
    from builder.sandbox.engines import choose
    from pipeline.definition import plates

    _workspace, store, built = build("prepare", 2)
    sandbox = choose(engine, store)
    found = plates.check_plate(sandbox, built["prepare"].image, Path(folder), layout)
    if json:
        facts(found, [], as_json=True)
    else:
        print(found["text"])
        table([(f"note: {note}",) for note in found["notes"]] or [("",)])
        print(f"plate digest: {found['plate_digest'] or 'none, the plate is not usable'}")
    for problem in found["problems"]:
        say(f"error: {problem}")
    if found["problems"]:
        raise SystemExit(1)
