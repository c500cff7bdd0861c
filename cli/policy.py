"""Images held against a policy file, for the tasks that compile, run, release and verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.output import say

POLICY_HELP = "a policy file (TOML) that every image must keep to: docs/policy.md"


def read(path: str) -> Any:
    """Return the Policy of a file, None without a name; raises BuilderError for a bad one."""
    if not path:
        return None
    from builder.policy.document import read as read_policy  # cryptography costs time

    return read_policy(Path(path))


def check(
    policy: Any,
    images: Sequence[str],
    *,
    own: Mapping[str, Any] | None = None,
    insecure: bool = False,
) -> None:
    """Hold pinned images against a policy; raises BuilderError that lists every breach.

    Of an index it is each image that it names. `own` is what this checkout knows of the images that
    it makes (`of_checkout`), by digest.
    """
    from concurrent.futures import ThreadPoolExecutor  # logging costs time

    from builder.errors import BuilderError
    from builder.inspect.audit import advisories
    from builder.policy.evidence import expand, gather
    from builder.policy.rules import judge, lines
    from builder.registry.client import Registries
    from builder.store import Store

    records = list(advisories.read(policy.advisories)) if "advisories" in policy.rules else []
    if records:
        newest = max(record.modified for record in records)[:10] or "an unknown day"
        say(f"{len(records)} advisories, the newest of {newest}")
    with Registries(insecure=insecure, notice=say) as registries, ThreadPoolExecutor(4) as pool:
        own = own or {}
        unknown = [image for image in images if image.partition("@")[2] not in own]
        known = [image for image in images if image not in unknown]
        images = [*known, *expand(unknown, registries, Store.open())]
        found = list(pool.map(lambda image: gather(image, policy.keys, registries, own), images))
    breaches = judge(policy, found, records)
    if breaches:
        listed = "\n".join(f"  {line}" for line in lines(breaches))
        raise BuilderError(f"the policy {policy.path} does not hold:\n{listed}")
    say(f"{len(images)} images keep to {policy.path}: {', '.join(sorted(policy.rules))}")
