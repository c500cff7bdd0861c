"""A function as a file for one machine: a Compose file, or a Quadlet of podman. Pure.

Sources: https://github.com/compose-spec/compose-spec/blob/main/spec.md and
https://docs.podman.io/en/latest/markdown/podman-systemd.unit.5.html (podman 4.4 or later).
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.serving import workload as of
from pipeline.serving.workload import Workload

_SCRATCH = f"/tmp:size={of.SCRATCH_MIB}m"  # noqa: S108 - the container's own
# The image has Python and no curl.
_ASK = (
    "python3", "-c",
    f"import urllib.request as u; u.urlopen('http://127.0.0.1:{of.PORT}{of.READY}', timeout=5)",
)  # fmt: skip


def compose(function: Workload, port: int) -> dict[str, Any]:
    """Return a Compose file whose one service answers on `port` of the machine's loopback.

    With port 0 the engine chooses one.
    """
    service = {
        "image": str(function.image),
        "environment": function.environment,
        "ports": [f"127.0.0.1:{port or ''}:{of.PORT}"],
        "user": f"{of.USER}:{of.USER}",
        "read_only": True,
        "tmpfs": [_SCRATCH],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "cpus": of.CORES,
        "mem_limit": f"{of.MEMORY_MIB}m",
        "pids_limit": of.PROCESSES,
        "healthcheck": {
            "test": ["CMD", *_ASK],
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": f"{of.LOAD_LIMIT}s",
        },
        "stop_grace_period": f"{of.GRACE}s",
        "restart": "unless-stopped",
    }
    return {"services": {function.name: service}}


def quadlet(function: Workload, port: int) -> str:
    """Return the text of `NAME.container`, which answers on `port` of the machine's loopback."""
    settings = [
        ("Image", str(function.image)),
        ("ContainerName", function.name),
        *(("Environment", f"{k}={v}") for k, v in function.environment.items()),
        ("PublishPort", f"127.0.0.1:{port or ''}:{of.PORT}"),
        ("User", str(of.USER)),
        ("Group", str(of.USER)),
        ("ReadOnly", "true"),
        # Without it podman writes to /tmp, /run and others in memory, as much as it likes.
        ("ReadOnlyTmpfs", "false"),
        ("Tmpfs", _SCRATCH),
        ("DropCapability", "all"),
        ("NoNewPrivileges", "true"),
        ("PidsLimit", str(of.PROCESSES)),
        ("PodmanArgs", f"--cpus={of.CORES} --memory={of.MEMORY_MIB}m --stop-timeout={of.GRACE}"),
        ("HealthCmd", json.dumps(_ASK)),
        ("HealthInterval", "10s"),
        ("HealthTimeout", "10s"),
        ("HealthStartPeriod", f"{of.LOAD_LIMIT}s"),
    ]
    return "\n".join([
        "[Unit]",
        f"Description=The function {function.name}: {function.image}",
        "",
        "[Container]",
        *(f"{name}={value}" for name, value in settings),
        "",
        "[Service]",
        "Restart=always",
        "TimeoutStartSec=900",  # the first start pulls the image
        f"TimeoutStopSec={of.GRACE + 15}",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ])  # fmt: skip
