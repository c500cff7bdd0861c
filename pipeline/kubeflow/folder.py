"""Whether the user that a package's steps run as could use a folder as the claim they mount.

A local run maps that user to whoever runs it, so it cannot see this. On a cluster the files keep
their owners, and Kubeflow Pipelines (2.17) sets no fsGroup, which would change them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.kubeflow.cluster import MISSING, NOTE, OK, Check
from pipeline.spec.kubernetes import known_name
from pipeline.spec.package import Package

MOST = 100_000  # files that are looked at
_READ, _WRITE, _ENTER = 4, 2, 1


@dataclass(frozen=True, slots=True)
class User:
    """Whom a step runs as; without a group of its own in the package it has the group 0."""

    uid: int
    gid: int

    def may(self, status: os.stat_result) -> int:
        """Return the bits of read (4), write (2) and enter (1) that the modes give this user.

        Access lists and what a server of files makes of root are not in the modes.
        """
        if self.uid == 0:
            return _READ | _WRITE | _ENTER
        if status.st_uid == self.uid:
            return status.st_mode >> 6 & 7
        return (status.st_mode >> 3 if status.st_gid == self.gid else status.st_mode) & 7


def check_folder(package: Package, claim: str, folder: Path, *, writes: bool) -> list[Check]:
    """Return, a user each, whether the steps that mount `claim` could use `folder` in its place.

    `writes` tells whether they write to it. Raises PipelineError for a claim that no step mounts,
    and for a folder that cannot be looked at.
    """
    declared = package.spec["root"].get("inputDefinitions", {}).get("parameters", {})
    defaults = {name: found.get("defaultValue", "") for name, found in declared.items()}
    defaults |= {f"pipelinechannel--{name}": value for name, value in defaults.items()}
    users: dict[User | None, list[str]] = {}
    claims = set()
    for label, settings in package.kubernetes.items():
        names = {known_name(m, "pvcName", defaults) for m in settings.get("pvcMount", [])}
        claims |= names
        if claim in names:
            users.setdefault(_user(settings), []).append(label.removeprefix("exec-"))
    if not users:
        raise PipelineError(
            f"no step of the package mounts the claim {claim}; it has "
            f"{', '.join(sorted(claims - {''})) or 'none'}"
        )
    return [_check(folder, user, steps, writes) for user, steps in users.items()]


def _user(settings: Mapping[str, Any]) -> User | None:
    security = settings.get("securityContext", {})
    if "runAsUser" not in security:
        return None
    return User(int(security["runAsUser"]), int(security.get("runAsGroup", 0)))


def _check(folder: Path, user: User | None, steps: list[str], writes: bool) -> Check:
    who = ", ".join(steps)
    if user is None:
        return Check(
            f"{folder} for {who}", NOTE, "they run as their images' own user",
            "set one in the package by kubernetes.set_security_context",
        )  # fmt: skip
    what = f"{folder} for user {user.uid}, group {user.gid} ({who})"
    needed = _READ | _WRITE if writes else _READ
    try:
        lacking = [
            (path, status)
            for path, status in _entries(folder)
            if _lacks(user, status, needed)
        ]  # fmt: skip
    except OSError as error:
        raise PipelineError(
            f"looking at {error.filename or folder} failed ({error.strerror}); give a folder that "
            "you can read"
        ) from None
    if not lacking:
        return Check(what, OK, "can be read and written" if writes else "can be read")
    path, status = lacking[0]
    more = f", and {len(lacking) - 1} more below" if len(lacking) > 1 else ""
    return Check(
        what, MISSING,
        f"{path} belongs to {status.st_uid}:{status.st_gid} with mode "
        f"{stat.S_IMODE(status.st_mode):04o}, so it cannot be {'written' if writes else 'read'}"
        f"{more}",
        f"chown -R {user.uid}:{user.gid} {folder}" if writes else f"chmod -R a+rX {folder}",
    )  # fmt: skip


def _lacks(user: User, status: os.stat_result, needed: int) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return False
    wanted = needed | (_ENTER if stat.S_ISDIR(status.st_mode) else 0)
    return user.may(status) & wanted != wanted


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield `folder` and what is below it; raises OSError where a folder cannot be listed."""
    if not folder.is_dir():
        raise NotADirectoryError(20, "it is not a folder", str(folder))
    yield folder, folder.stat()
    seen = 0
    waiting = [folder]
    while waiting and seen < MOST:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                status = entry.stat(follow_symlinks=False)
                yield Path(entry.path), status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(Path(entry.path))
