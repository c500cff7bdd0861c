"""The task that tells whether a cluster will do what this machine does."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import ENGINE_HELP, INSECURE_HELP, JSON_HELP, REGISTRY_HELP, facts, say, table
from cli.pipeline import check_programs, pin_in_registry, pin_local, pulled
from cli.server import SERVER_HELP, reached

_TARGET = "conformance"
# Cases in, each with what this machine made of it out.
Here = Callable[[Sequence[Any]], Iterator[tuple[Any, Any]]]


@command(
    help={
        "image": "an image by digest that has /bin/sh, for example busybox's (without it our own)",
        "registry": f"{REGISTRY_HELP}, for our own image `{_TARGET}`",
        "local-only": "compare what this machine does with what is written down; ask no server",
        "only": "cases whose names hold one of these words, separated by commas (all)",
        "claim": "a claim that is there, for --host (with --context one is made and removed)",
        "secret": "a secret that is there, with key=conformance, for --host",
        "at-once": "how many cases to run at the same time on the server",
        "timeout": "seconds after which a case is ended",
        "engine": f"{ENGINE_HELP}; or kfp: compare with KFP's own two programs on this machine",
        "driver": "for --engine kfp: KFP's driver, a file or KFP's image by digest",
        "launcher": "for --engine kfp: KFP's launcher, a file or KFP's image by digest",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
        **SERVER_HELP,
        "namespace": "where claim and secret are made, and the profile's namespace",
    },
)
def conformance(
    host: str = "",
    context: str = "",
    image: str = "",
    registry: str = "",
    local_only: bool = False,
    only: str = "",
    claim: str = "",
    secret: str = "",
    at_once: int = 8,
    timeout: int = 900,
    namespace: str = "",
    kfp_namespace: str = "kubeflow",
    kubeconfig: str = "",
    token_file: str = "",
    token_command: str = "",
    cookie_file: str = "",
    ca_file: str = "",
    engine: str = "auto",
    driver: str = "",
    launcher: str = "",
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Run small packages here and on Kubeflow Pipelines, and print what was not the same.

    Its cluster is --host or --context; --engine kfp has its driver and launcher on this machine.
    """
    from pipeline.errors import PipelineError
    from pipeline.kubeflow.conformance.suite import packages
    from pipeline.kubeflow.conformance.there import PREFIX, Limits

    if (local_only or engine == "kfp") and (host or context):
        raise PipelineError(
            "--local-only and --engine kfp ask no server; give them without --host and --context"
        )
    check_programs(engine, driver, launcher)
    if at_once < 1 or timeout < 1:
        raise PipelineError("--at-once and --timeout are 1 or more")
    mark = secrets.token_hex(4)
    local_only = local_only or engine == "kfp"
    store, pinned = _image(image, registry, local_only, insecure)
    names = (claim or PREFIX + mark, secret or PREFIX + mark)
    cases = packages.chosen(packages.everything(pinned, *names, mark), only)
    with contextlib.ExitStack() as open_:
        folder = Path(open_.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        say(f"compiling {len(cases)} packages")
        suite = packages.compiled(cases, folder)
        own = "bubblewrap" if engine == "kfp" else engine
        here = functools.partial(_here, store, folder / "here", names, own, insecure)
        if engine == "kfp":
            from pipeline.backend.programs import VERSION

            version = f"{VERSION} by its own programs"
            programs = (driver, launcher)
            verdicts = list(
                _by_programs(suite, here, store, folder / "kfp", names, programs, insecure)
            )
        elif local_only:
            verdicts = list(_alone(suite, here))
            version = ""
        else:
            access = open_.enter_context(
                reached(host, context, kfp_namespace, kubeconfig, namespace, token_file,
                        token_command, cookie_file, ca_file)
            )  # fmt: skip
            have = {"claim": bool(claim), "secret": bool(secret)}
            if context:
                have = _lend(open_, context, kubeconfig, namespace, PREFIX + mark, have)
            limits = Limits(at_once, timeout)
            version, verdicts = _compared(suite, here, access, mark, limits, have)
    _show(verdicts, version, json)


def _image(image: str, registry: str, local_only: bool, insecure: bool) -> tuple[Any, str]:
    """Return the store, and the image by digest that the cases run."""
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.spec.package import image_digest

    if image:
        image_digest(image)
        return Store.open(), image
    registry = registry or os.environ.get("PLATELINE_REGISTRY", "")
    if not local_only and not registry:
        raise PipelineError(
            "the cluster needs an image that it can pull; give --image REPOSITORY@sha256:… that "
            f"has /bin/sh, or push ours (`invoke push-images --targets {_TARGET}`) and give "
            "--registry"
        )
    if local_only:
        pinned = pin_local(2, [_TARGET])
    else:
        pinned = pin_in_registry(registry, 2, insecure=insecure, targets=[_TARGET])
    return pinned.store, pinned.pins[_TARGET]


def _lend(
    open_: contextlib.ExitStack, context: str, kubeconfig: str, namespace: str, name: str,
    have: dict[str, bool],
) -> dict[str, bool]:  # fmt: skip
    """Make the claim and the secret that were not named, for the time of the suite."""
    from pipeline.kubeflow.cluster import Cluster
    from pipeline.kubeflow.conformance.lent import lent

    path = Path(kubeconfig) if kubeconfig else None
    cluster = Cluster(context, namespace or "kubeflow", kubeconfig=path)
    missing = [kind for kind, there in have.items() if not there]
    open_.enter_context(lent(cluster, name, missing, say))
    return dict.fromkeys(have, True)


def _alone(suite: Sequence[Any], here: Here) -> Iterator[Any]:
    from pipeline.kubeflow.conformance.observation import unexpected
    from pipeline.kubeflow.conformance.verdict import Verdict

    for packaged, found in here(suite):
        yield Verdict.of(packaged.name, unexpected(packaged.case, found))


def _by_programs(
    suite: Sequence[Any], here: Here, store: Any, folder: Path, names: tuple[str, str],
    programs: tuple[str, str], insecure: bool,
) -> Iterator[Any]:  # fmt: skip
    """Yield what was not the same of each case when KFP's own programs ran it."""
    from builder.registry.client import Registries
    from pipeline.backend import programs as of_kfp
    from pipeline.backend import runner
    from pipeline.kubeflow.conformance.here import run_here
    from pipeline.kubeflow.conformance.observation import differences
    from pipeline.kubeflow.conformance.verdict import CONTENTS_LEFT, Verdict

    with Registries(insecure=insecure, notice=say) as registries:
        found = of_kfp.bring(*programs, store, lambda name: pulled(name, store, registries, 2))

    def run(package: Any, lent: Any, **how: Any) -> Any:
        return runner.run(package, lent, found, **how)

    for number, (packaged, expected) in enumerate(here(suite)):
        seen = run_here(
            packaged, store, folder / str(number), claim=names[0], secret=names[1], run=run
        )
        verdict = Verdict.of(packaged.name, differences(expected, seen))
        say(f"  {packaged.name}: {verdict.word}")
        yield replace(verdict, why=verdict.why or CONTENTS_LEFT)


def _here(
    store: Any, folder: Path, names: tuple[str, str], engine: str, insecure: bool,
    suite: Sequence[Any],
) -> Iterator[tuple[Any, Any]]:  # fmt: skip
    """Yield each case and what this machine made of it."""
    from builder.registry.client import Registries
    from pipeline.kubeflow.conformance.here import run_here
    from pipeline.run.runner import run

    say(f"running {len(suite)} cases here")
    with Registries(insecure=insecure, notice=say) as registries, store.in_use():
        for number, packaged in enumerate(suite):
            yield packaged, run_here(
                packaged, store, folder / str(number), claim=names[0], secret=names[1],
                run=functools.partial(
                    run, engine=engine, find_image=lambda name: pulled(name, store, registries, 2)
                ),
            )  # fmt: skip


def _compared(
    suite: Sequence[Any], here: Here, access: Any, mark: str, limits: Any, have: dict[str, bool],
) -> tuple[str, list[Any]]:  # fmt: skip
    """Return the server's version, and what was not the same of each case."""
    from pipeline.kubeflow.conformance.observation import differences
    from pipeline.kubeflow.conformance.there import run_there
    from pipeline.kubeflow.conformance.verdict import Verdict
    from pipeline.kubeflow.server.connection import Connection

    with Connection(access, say) as connection:
        version = str(connection.get("healthz").get("tag_name") or "of an unknown version")
        tried, verdicts = [], []
        for one in suite:
            lacks = [kind for kind, there in have.items() if getattr(one.case, kind) and not there]
            if lacks:
                why = f"not tried: give --{lacks[0]} NAME, or --context"
                verdicts.append(Verdict(one.name, "not tried", (), why))
            else:
                tried.append(one)
        expected = {one.name: found for one, found in here(tried)}
        say(f"running {len(tried)} cases on Kubeflow Pipelines {version}")
        for name, found in run_there(connection, tried, mark, limits, say):
            verdicts.append(Verdict.of(name, differences(expected[name], found), found.complete))
            say(f"  {name}: {verdicts[-1].word}")
    order = {one.name: number for number, one in enumerate(suite)}
    return version, sorted(verdicts, key=lambda verdict: order[verdict.name])


def _show(verdicts: Sequence[Any], version: str, as_json: bool) -> None:
    """Print a line a case and one a difference; exit with 1 where there is one."""
    there = f"Kubeflow Pipelines {version}" if version else "this machine"
    rows = [("case", "", "")]
    rows += [(v.name, v.word, v.why) for v in verdicts]
    different = [(v, d) for v in verdicts for d in v.differences]
    found = {"version": version, "cases": [asdict(v) for v in verdicts]}
    facts(found, rows, as_json=as_json)
    if different and not as_json:
        print()
        head = ("case", "where", "here" if version else "must be", there)
        table([head, *((v.name, d.where, d.here, d.there) for v, d in different)])
    count = sum(v.word == "differs" for v in verdicts)
    say(
        f"{count} of {len(verdicts)} cases differ on {there}"
        if count
        else f"{sum(v.word == 'same' for v in verdicts)} cases are the same on {there}"
    )
    sys.stdout.flush()
    raise SystemExit(bool(count))
