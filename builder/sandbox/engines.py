"""Which of the engines that can run an image does: the first that this machine has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from builder.errors import BuilderError
from builder.sandbox import host
from builder.sandbox.process import Sandbox
from builder.store import Store

NAMES = ("auto", "bubblewrap", "podman", "docker")


def _print(text: str) -> None:
    print(text, file=sys.stderr)


def choose(engine: str, store: Store, say: Callable[[str], object] = _print) -> Sandbox:
    """Return the sandbox `engine`: `bubblewrap`, `podman`, `docker`, or `auto`.

    `auto` is bubblewrap where it runs, else podman without root, else Docker; what is not the first
    is told by `say`, with the reason, in a line. Raises BuilderError where the one that was asked
    for cannot be used, or none can: with what this system needs.
    """
    if engine == "process":
        raise BuilderError(
            "there is no engine `process`: without namespaces an image's files and a step's "
            "folders cannot be at their paths, and proot, which imitates that, loses exit codes; "
            "use auto, bubblewrap, podman or docker, and see docs/sandbox.md"
        )
    if engine == "slurm":
        raise BuilderError("`slurm` is an engine of `invoke run` alone; see docs/slurm.md")
    if engine not in NAMES:
        raise BuilderError(f"unknown engine {engine!r}; there are {', '.join(NAMES)}")
    if engine != "auto":
        return _MAKE[engine](store)
    lacks = []
    for name, make in _MAKE.items():
        try:
            found = make(store)
        except BuilderError as error:
            lacks.append((name, str(error)))
            continue
        if lacks:
            reason = lacks[0][1].partition("; ")[0].partition("\n")[0]
            say(f"images run by {name}: {reason} (`invoke doctor` says more)")
        return found
    raise BuilderError("no engine can run an image here:\n" + _list(lacks))


def lacking(store: Store) -> Iterator[tuple[str, str, str]]:
    """Yield each engine's name, its version where it can be used, and what it lacks where not."""
    for name, make in _MAKE.items():
        try:
            yield name, _version(make(store)), ""
        except BuilderError as error:
            yield name, "", str(error)


def _version(sandbox: Sandbox) -> str:
    if sandbox.name == "bubblewrap":
        found = host.bubblewrap(sandbox.store.root)  # type: ignore[attr-defined]
        return f"{found.version}{'' if found.overlay else ', without overlay'}"
    return str(sandbox.client.version()["Version"])  # type: ignore[attr-defined]


def _bubblewrap(store: Store) -> Sandbox:
    from builder.sandbox.bubblewrap import Bubblewrap

    host.bubblewrap(store.root)
    return Bubblewrap(store)


def _podman(store: Store) -> Sandbox:
    from builder.sandbox.docker import podman

    return podman(store)


def _docker(store: Store) -> Sandbox:
    from builder.sandbox.docker import Docker

    return Docker(store)


_MAKE: dict[str, Callable[[Store], Sandbox]] = {
    "bubblewrap": _bubblewrap,
    "podman": _podman,
    "docker": _docker,
}


def _list(lacks: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {why}" for name, why in lacks)
