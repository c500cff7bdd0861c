"""How a task that speaks to a server of Kubeflow Pipelines is told where it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERVER_HELP = {
    "host": "address of its web page, for example http://localhost:8080 ($KF_PIPELINES_ENDPOINT)",
    "context": "a context of the kubeconfig, instead of --host: kubectl makes the way",
    "kfp-namespace": "where Kubeflow Pipelines itself is, for --context",
    "kubeconfig": "the kubeconfig ($KUBECONFIG, or ~/.kube/config), for --context",
    "namespace": "the profile's namespace, where the installation has several users",
    "token-file": "a file with the bearer token ($KF_PIPELINES_TOKEN)",
    "token-command": "a command that prints the bearer token, run again when one has ended",
    "cookie-file": "a file with the cookie of a signed-in browser, name=value",
    "ca-file": "the certificates of the server's CA, PEM ($SSL_CERT_FILE, or the system's)",
}


@contextlib.contextmanager
def reached(
    host: str, context: str, kfp_namespace: str, kubeconfig: str, namespace: str, token_file: str,
    token_command: str, cookie_file: str, ca_file: str,
) -> Iterator[Any]:  # fmt: skip
    """Yield the Access of a server; with a context as long as kubectl makes the way."""
    from pipeline.errors import PipelineError
    from pipeline.kubeflow.server.access import Access, from_environment
    from pipeline.kubeflow.server.forward import forwarded

    if host and context:
        raise PipelineError("--host and --context both name a server; give one of them")
    if sum(map(bool, (token_file, token_command, cookie_file))) > 1:
        raise PipelineError(
            "--token-file, --token-command and --cookie-file exclude each other; give one"
        )
    host = host or ("" if context else os.environ.get("KF_PIPELINES_ENDPOINT", ""))
    if not host and not context:
        raise PipelineError(
            "no API was named; give --context, or --host, for example http://localhost:8080 after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`"
        )
    with contextlib.ExitStack() as open_:
        if context:
            path = Path(kubeconfig) if kubeconfig else None
            host = open_.enter_context(forwarded(context, kfp_namespace, path))
        yield from_environment(
            Access(
                host, token_file=Path(token_file) if token_file else None,
                token_command=token_command, cookie=_read(cookie_file, "cookie-file"),
                ca_file=Path(ca_file) if ca_file else None, namespace=namespace,
            )
        )  # fmt: skip


def _read(path: str, option: str) -> str:
    from pipeline.errors import PipelineError

    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, ValueError) as error:
        raise PipelineError(f"reading --{option} {path} failed ({error})") from None
