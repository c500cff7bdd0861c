"""The tasks that check a compiled package and hand it to a cluster."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from cli.command import command
from cli.output import INSECURE_HELP, JSON_HELP, facts, say
from cli.pipeline import PACKAGE, pairs

FILE_HELP = f"a compiled package, for example {PACKAGE}"


@command(help={"file": f"{FILE_HELP}, also one that others compiled", "json": JSON_HELP})
def lint(file: str, json: bool = False) -> None:
    """Check a compiled package for what would fail, or silently go wrong, on a cluster."""
    from pipeline.spec.lint import lint as check

    found = check(Path(file))
    rows = [("where", "rule", "what")] + [(f.where, f.rule, f.message) for f in found]
    if found or json:
        facts({"findings": [asdict(f) for f in found]}, rows, as_json=json)
    count = f"{len(found)} fault{'s' * (len(found) > 1)}" if found else "no fault"
    say(f"{file}: {count} found")
    raise SystemExit(bool(found))


@command(
    positional=["file"],
    repeated=["param"],
    help={
        "file": FILE_HELP,
        "host": "address of the API, for example http://localhost:8080 ($KF_PIPELINES_ENDPOINT)",
        "experiment": "the experiment that the run belongs to",
        "param": "a parameter, name=value; once for each",
        "wait": "wait for the end of the run; exit with 1 where it did not succeed",
        "namespace": "the profile's namespace, where the installation has several users",
        "token-file": "a file with the bearer token",
        "cookie-file": "a file with the cookie of a signed-in browser, name=value",
        "skip-registry": "do not ask the registry for the images: only the cluster reaches it",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def submit(
    file: str,
    host: str = "",
    experiment: str = "Default",
    param: list[str] = [],  # noqa: B006 - invoke reads it as a list
    wait: bool = False,
    namespace: str = "",
    token_file: str = "",
    cookie_file: str = "",
    skip_registry: bool = False,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Upload a package as a version named after its digest, and start a run of it."""
    from pipeline.errors import PipelineError
    from pipeline.kubeflow import submit as submission

    host = host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    if not host:
        raise PipelineError(
            "no API was named; give --host, for example http://localhost:8080 after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`"
        )
    access = submission.Access(
        host, _read(token_file, "token-file"), _read(cookie_file, "cookie-file"), namespace
    )
    done = submission.submit(
        Path(file), access, parameters=pairs(param, "param"), experiment=experiment,
        check_registry=not skip_registry, insecure=insecure, said=say,
    )  # fmt: skip
    say(f"run: {done.link}")
    state = submission.wait(done, access, said=say) if wait else ""
    rows = [("what", ""), ("version", done.version), ("run", done.run_id), ("link", done.link)]
    rows += [("state", state)] if wait else []
    facts({**asdict(done), "state": state}, rows, as_json=json)
    raise SystemExit(bool(wait and state != "SUCCEEDED"))


@command(
    help={
        "file": FILE_HELP,
        "context": "a context of the kubeconfig (the current one)",
        "namespace": "where the runs' pods start",
        "kfp-namespace": "where Kubeflow Pipelines itself is",
        "service-account": "what the pods run as",
        "kubeconfig": "the kubeconfig ($KUBECONFIG, or ~/.kube/config)",
        "skip-pull": "start no pod to try whether the nodes can pull the images",
        "json": JSON_HELP,
    }
)
def preflight(
    file: str,
    context: str = "",
    namespace: str = "kubeflow",
    kfp_namespace: str = "kubeflow",
    service_account: str = "pipeline-runner",
    kubeconfig: str = "",
    skip_pull: bool = False,
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
    checks = ask(load(Path(file)), cluster, pull=not skip_pull, said=say)
    rows = [("", "what", "found", "to do")]
    rows += [(check.state, check.what, check.found, check.remedy) for check in checks]
    facts({"checks": [asdict(check) for check in checks]}, rows, as_json=json)
    missing = sum(check.state == MISSING for check in checks)
    say(f"{missing} missing" if missing else "the cluster has what the package needs")
    raise SystemExit(bool(missing))


def _read(path: str, option: str) -> str:
    from pipeline.errors import PipelineError

    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, ValueError) as error:
        raise PipelineError(f"reading --{option} {path} failed ({error})") from None
