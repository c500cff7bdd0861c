"""The tasks that check a compiled package and hand it to a cluster."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import INSECURE_HELP, JSON_HELP, facts, say
from cli.pipeline import PACKAGE, SETTINGS_HELP, cluster_settings, pairs
from cli.server import SERVER_HELP, reached

FILE_HELP = f"a compiled package, for example {PACKAGE}"


@command(
    positional=["file"],
    help={
        "file": f"{FILE_HELP}, also one that others compiled",
        "backend": "the version of Kubeflow Pipelines that is to run it",
        "rules": "list the rules instead, with the reason of each and how it is known",
        "json": JSON_HELP,
    },
)
def lint(
    file: str = PACKAGE, backend: str = "2.17", rules: bool = False, json: bool = False
) -> None:
    """Check a compiled package for what would fail, or silently go wrong, on a cluster."""
    from pipeline.spec.lint import examine
    from pipeline.spec.rules.catalogue import RULES, known_backend

    version = known_backend(backend)
    if rules:
        held = [rule for rule in RULES.values() if rule.holds(version)]
        listed = [("rule", "gives", "known", "because")]
        listed += [(r.name, "fault" if r.fault else "note", r.basis, r.reason) for r in held]
        facts({"backend": version, "rules": [asdict(r) for r in held]}, listed, as_json=json)
        return
    found, notes = examine(Path(file), backend)
    rows = [("line", "", "rule", "where", "what")]
    for kind, findings in (("fault", found), ("note", notes)):
        rows += [(str(f.line), kind, f.rule, f.where, f.message) for f in findings]
    reported = {
        name: [asdict(f) | {"reason": RULES[f.rule].reason} for f in findings]
        for name, findings in (("findings", found), ("notes", notes))
    }
    if found or notes or json:
        facts({"backend": version, **reported}, rows, as_json=json)
    count = f"{len(found)} fault{'s' * (len(found) > 1)}" if found else "no fault"
    say(f"{file}: {count} found for Kubeflow Pipelines {version}")
    raise SystemExit(bool(found))


@command(
    positional=["file"],
    repeated=["param"],
    help={
        "file": FILE_HELP,
        "param": "a parameter, name=value; once for each",
        "experiment": "the experiment that the run belongs to",
        "run-name": "the run's name; one of that name that is there is followed, not started again",
        "service-account": "what the pods run as (that of the settings, or the server's default)",
        "settings": SETTINGS_HELP,
        "wait": "follow the run to its end; exit with 1 where it did not succeed",
        "fetch": "a new folder for artifacts, logs and the page of the run (waits for its end)",
        "cancel-on-interrupt": "end the run on the server on Ctrl-C (without it, it goes on)",
        "cron": "start runs at these times instead of one now: six fields, seconds first",
        "at-once": "how many runs of --cron may go on at the same time",
        "skip-registry": "do not ask the registry for the images: only the cluster reaches it",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
        **SERVER_HELP,
    },
)
def submit(
    file: str,
    host: str = "",
    context: str = "",
    experiment: str = "Default",
    param: list[str] = [],  # noqa: B006 - invoke reads it as a list
    run_name: str = "",
    wait: bool = False,
    fetch: str = "",
    cancel_on_interrupt: bool = False,
    cron: str = "",
    at_once: int = 1,
    service_account: str = "",
    settings: str = "",
    namespace: str = "",
    kfp_namespace: str = "kubeflow",
    kubeconfig: str = "",
    token_file: str = "",
    token_command: str = "",
    cookie_file: str = "",
    ca_file: str = "",
    skip_registry: bool = False,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Upload a package as a version named after its digest, start a run of it, and follow it."""
    from pipeline.errors import PipelineError
    from pipeline.kubeflow import submit as submission

    waits = wait or bool(fetch)
    if cron and (waits or cancel_on_interrupt):
        raise PipelineError("--cron starts no run now; give it without --wait and --fetch")
    if fetch and Path(fetch).exists():
        raise PipelineError(f"{fetch} is there already; choose another --fetch DIR")
    with reached(
        host, context, kfp_namespace, kubeconfig, namespace, token_file, token_command,
        cookie_file, ca_file,
    ) as access:  # fmt: skip
        done = submission.submit(
            Path(file), access, parameters=pairs(param, "param"), experiment=experiment,
            run_name=run_name,
            service_account=service_account or cluster_settings(settings).service_account,
            schedule=submission.Schedule(cron, at_once) if cron else None,
            check_registry=not skip_registry, insecure=insecure, said=say,
        )  # fmt: skip
        say(f"{'schedule' if cron else 'run'}: {done.link}")
        state, page = "", ""
        if waits:
            state, page = _followed(Path(file), access, done, fetch, cancel_on_interrupt)
    rows = [("what", ""), ("version", done.version)]
    rows += [("recurring run" if cron else "run", done.recurring_run_id or done.run_id)]
    rows += [("name", done.name), ("link", done.link)]
    rows += [("state", state)] if waits else []
    rows += [("page", page)] if page else []
    facts({**asdict(done), "state": state, "page": page}, rows, as_json=json)
    raise SystemExit(bool(waits and state != "SUCCEEDED"))


def _followed(
    file: Path, access: Any, done: Any, fetch: str, cancel_on_interrupt: bool
) -> tuple[str, str]:
    """Wait for the end of a run and bring what it left; return its state and the page's path."""
    from pipeline.kubeflow import results, watch
    from pipeline.kubeflow.server.connection import Connection
    from pipeline.run.progress import live
    from pipeline.spec.package import load

    package = load(file)
    with contextlib.ExitStack() as open_:
        connection = open_.enter_context(Connection(access, say))
        if cancel_on_interrupt:
            open_.enter_context(watch.ending(connection, done.run_id, say))
        with live(sys.stderr) as progress:
            ended = watch.wait(
                connection, done.run_id, spec=package.spec, link=done.link, said=say,
                progress=progress,
            )  # fmt: skip
        if ended.state != "SUCCEEDED":
            for line in watch.failures(connection, ended):
                say(line)
        if not fetch:
            return ended.state, ""
        result = results.fetch(connection, ended, package, Path(fetch), say)
        for note in result.notes:
            say(f"note: {note}")
        return ended.state, str(result.page)


@command(
    repeated=["local"],
    help={
        "file": FILE_HELP,
        "local": "instead of a cluster, look at a folder that stands for a claim: DIR for "
        "kubeflow-workdir-pvc, or claim=DIR; once for each",
        "context": "a context of the kubeconfig (the current one)",
        "namespace": "where the runs' pods start",
        "kfp-namespace": "where Kubeflow Pipelines itself is",
        "service-account": "what the pods run as",
        "kubeconfig": "the kubeconfig ($KUBECONFIG, or ~/.kube/config)",
        "skip-pull": "start no pod to try whether the nodes can pull the images",
        "skip-claims": "start no pod to try whether the package's user can write to each claim",
        "json": JSON_HELP,
    },
)
def preflight(
    file: str,
    local: list[str] = [],  # noqa: B006 - invoke reads it as a list
    context: str = "",
    namespace: str = "kubeflow",
    kfp_namespace: str = "kubeflow",
    service_account: str = "pipeline-runner",
    kubeconfig: str = "",
    skip_pull: bool = False,
    skip_claims: bool = False,
    json: bool = False,
) -> None:
    """Ask a cluster for all that a package needs: claims, secret, GPU, images, the API."""
    from pipeline.kubeflow.cluster import MISSING, Cluster
    from pipeline.kubeflow.preflight import preflight as ask
    from pipeline.spec.package import load

    cluster = Cluster(
        context, namespace, kfp_namespace, service_account,
        Path(kubeconfig) if kubeconfig else None,
    )  # fmt: skip
    package = load(Path(file))
    if local:
        checks = _folders(package, local)
    else:
        checks = ask(package, cluster, pull=not skip_pull, write=not skip_claims, said=say)
    rows = [("", "what", "found", "to do")]
    rows += [(check.state, check.what, check.found, check.remedy) for check in checks]
    facts({"checks": [asdict(check) for check in checks]}, rows, as_json=json)
    missing = sum(check.state == MISSING for check in checks)
    asked = "the folder has" if local else "the cluster has"
    say(f"{missing} missing" if missing else f"{asked} what the package needs")
    raise SystemExit(bool(missing))


def _folders(package: Any, local: list[str]) -> list[Any]:
    """Check folders of this machine as the package's user would see them on a cluster."""
    from pipeline.definition.claims import IMAGES_CLAIM, WORKDIR_CLAIM
    from pipeline.kubeflow.folder import check_folder

    found = []
    for text in local:
        claim, equals, folder = text.partition("=")
        name, path = (claim, folder) if equals else (WORKDIR_CLAIM, text)
        found += check_folder(package, name, Path(path), writes=name != IMAGES_CLAIM)
    return found
