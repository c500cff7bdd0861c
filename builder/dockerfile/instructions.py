"""What the instructions that make no layer do to an image's config.

Meaning: https://docs.docker.com/reference/dockerfile/; form of the result:
https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md and, for HEALTHCHECK, which is
not in it, https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from builder.dockerfile import accounts
from builder.dockerfile.recipe import Instruction, exec_words, filled, pairs, words
from builder.errors import BuilderError
from builder.oci.numbers import whole

Config = dict[str, Any]
Variables = Mapping[str, str]

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|ms|s|m|h)")
_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_TIMES = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Return ENV as it stands; images of others may say `Env: null`."""
    entries = (entry.partition("=") for entry in config.get("Env") or ())
    return {name: value for name, _, value in entries}


def apply(config: Config, instruction: Instruction, variables: Variables, seen: set[str]) -> bool:
    """Change `config` as `instruction` says; False where that is not all it does.

    `seen` holds the names of the stage's instructions before it. Raises BuilderError without a
    place for what cannot be.
    """
    change = _CHANGES.get(instruction.name)
    if change is None:
        return False
    change(config, instruction, variables)
    if instruction.name == "ENTRYPOINT" and "CMD" not in seen:
        config.pop("Cmd", None)  # the base's, which was meant for the base's entry point
    return True


def _env(config: Config, instruction: Instruction, variables: Variables) -> None:
    values = environment(config) | pairs(instruction, variables)
    config["Env"] = [f"{name}={value}" for name, value in values.items()]


def _label(config: Config, instruction: Instruction, variables: Variables) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **pairs(instruction, variables)}


def _user(config: Config, instruction: Instruction, variables: Variables) -> None:
    config["User"] = accounts.complete(filled(instruction.value, variables, "USER"), "USER")


def _cmd(config: Config, instruction: Instruction, _: Variables) -> None:
    config["Cmd"] = _command(config, instruction)


def _entrypoint(config: Config, instruction: Instruction, _: Variables) -> None:
    config["Entrypoint"] = _command(config, instruction)


def _command(config: Config, instruction: Instruction) -> list[str]:
    found = exec_words(instruction.value)
    shell = config.get("Shell") or ["/bin/sh", "-c"]
    return found if found is not None else [*shell, instruction.value]


def _stopsignal(config: Config, instruction: Instruction, variables: Variables) -> None:
    config["StopSignal"] = filled(instruction.value, variables, "STOPSIGNAL")


def _expose(config: Config, instruction: Instruction, variables: Variables) -> None:
    ports: dict[str, Any] = dict(config.get("ExposedPorts") or {})
    for word in " ".join(words(instruction, variables)).split():
        match = _PORT.fullmatch(word)
        last = int(match[2] or match[1]) if match else 0
        if not match or not 0 < int(match[1]) <= last < 1 << 16:
            raise BuilderError(f"EXPOSE {word} is no port such as 8080, 8080/udp or 8000-8010")
        kind = (match[3] or "tcp").lower()
        ports |= {f"{port}/{kind}": {} for port in range(int(match[1]), last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: Config, instruction: Instruction, variables: Variables) -> None:
    found: dict[str, Any] = {word: {} for word in words(instruction, variables)}
    config["Volumes"] = {**(config.get("Volumes") or {}), **found}


def _healthcheck(config: Config, instruction: Instruction, _: Variables) -> None:
    kind, *rest = instruction.value.split(None, 1)
    if kind.upper() == "NONE" and not rest:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    found = exec_words(rest[0]) if rest else []
    if kind.upper() != "CMD" or found == []:
        raise BuilderError("HEALTHCHECK is `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`")
    check: dict[str, Any] = {"Test": ["CMD", *found] if found else ["CMD-SHELL", rest[0].strip()]}
    for flag, name in _TIMES.items():
        if flag in instruction.flags:
            check[name] = nanoseconds(instruction.flags[flag])
    if "retries" in instruction.flags:
        retries = instruction.flags["retries"]
        if not (number := whole(retries)):
            raise BuilderError(f"--retries={retries} is no number from 1 on")
        check["Retries"] = number
    config["Healthcheck"] = check


def nanoseconds(text: str) -> int:
    """Return a duration of Go, such as `1m30s` or `500ms`, in nanoseconds.

    >>> nanoseconds("1m30s")
    90000000000
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BuilderError(f"{text!r} is not a duration such as 30s, 1m30s or 500ms")
    return sum(round(float(number) * _UNITS[unit]) for number, unit in parts)


_CHANGES: Mapping[str, Callable[[Config, Instruction, Variables], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
