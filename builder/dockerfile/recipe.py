"""Dockerfiles without RUN, as data.

Syntax and meaning: https://docs.docker.com/reference/dockerfile/. What is not supported is refused
with file, line and a way out; nothing is passed over.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.dockerfile.shellwords import expand, split
from builder.errors import BuilderError

_FLAGS = {
    "FROM": {"platform"},
    "COPY": {"from", "chown", "chmod", "link"},
    "ADD": {"checksum", "chown", "chmod", "link"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"},
}
_VARIABLE = re.compile(r"\$\{?(\w+)")
# White space between words: a name may hold other signs of that kind, such as U+202F.
_SPACE = re.compile(r"[\t\v\f\r ]+")
_FLAG = re.compile(
    r"""--((?:\\.|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s'"\\])*)(?:\s+|$)""", re.DOTALL
)
_STAGE = re.compile(r"[a-z][a-z0-9_.-]*")
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*(\S*)\s*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"\s*#\s*[a-zA-Z][a-zA-Z0-9]*\s*=.*")
_CONTINUED = re.compile(r".*\\[ \t]*")
_UNCLEAR = re.compile(r".*\\\\[ \t]*")
_PLAIN = {
    "ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip
_WAYS_OUT = {
    "RUN": "its result would depend on the network and the clock; bring Debian packages by "
    "`debian.in` and COPY --from=debian, wheels by `requirements.in` and COPY --from=wheels, and "
    "other files by COPY",
    "ONBUILD": "write the instruction in the recipe that builds on this one",
    "SHELL": "write CMD and ENTRYPOINT in exec form: [\"program\", \"argument\"]",
    "MAINTAINER": "use LABEL org.opencontainers.image.authors=…",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: where it stands, its flags, and its value as written (not expanded)."""

    name: str
    line: int
    flags: Mapping[str, str]
    value: str


@dataclass(frozen=True, slots=True)
class BuildStage:
    """What follows one FROM: the base as written, the stage's own name if it has one.

    `platform` is that of `--platform`, as written; most have none.
    """

    base: str
    alias: str
    line: int
    instructions: tuple[Instruction, ...]
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole Dockerfile: the ARGs before the first FROM, and the stages; the last is the image."""

    path: str
    arguments: tuple[Instruction, ...]
    stages: tuple[BuildStage, ...]


class RefusedError(BuilderError):
    """A problem with its place, `file:line: ` or the file alone."""


def refuse(path: str, line: int, problem: BuilderError | str) -> BuilderError:
    """Return the error that names file, line and problem; one that has its place keeps it."""
    if isinstance(problem, RefusedError):
        return problem
    return RefusedError(f"{path}:{line}: {problem}")


def parse(text: str, path: str) -> Recipe:
    """Parse the Dockerfile `text`; `path` is for messages.

    Raises BuilderError for what is not supported, and where there is no FROM.
    """
    import dockerfile_parse

    content = _without_gaps(text, path)
    parser = dockerfile_parse.DockerfileParser(fileobj=io.BytesIO(content.encode()))
    arguments: list[Instruction] = []
    stages: list[BuildStage] = []
    for item in parser.structure:
        name, line = item["instruction"].upper(), item["startline"] + 1
        if name == "COMMENT":
            continue
        instruction = _instruction(name, item["value"], line, path)
        if name == "FROM":
            base, alias = _from(instruction, path)
            asked = instruction.flags.get("platform", "")
            stages.append(BuildStage(base, alias, line, (), asked))
        elif stages:
            last = stages[-1]
            stages[-1] = BuildStage(
                last.base, last.alias, last.line, (*last.instructions, instruction), last.platform
            )
        elif name == "ARG":
            arguments.append(instruction)
        else:
            raise refuse(path, line, f"{name} comes before the first FROM; begin with FROM")
    if not stages:
        raise refuse(path, 1, "there is no FROM; begin with `FROM base` or `FROM scratch`")
    return Recipe(path, tuple(arguments), tuple(stages))


def _without_gaps(text: str, path: str) -> str:
    """Return `text` as dockerfile_parse reads it right; line numbers stay.

    Like Docker: a blank line within an instruction is passed over, and the end of the file ends an
    instruction; the library would end it at the blank line, and drop one that the file cuts short.
    """
    lines: list[str] = []
    continued, directives = False, True
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        directives = directives and _DIRECTIVE.fullmatch(words) is not None
        if directives and (escape := _ESCAPE.fullmatch(words)) and escape[1] != "\\":
            raise refuse(
                path, number, f"escape={escape[1]} is not supported; let \\ continue a line"
            )
        blank = continued and not words
        lines.append("#" if blank else line)
        if not blank and not words.startswith("#"):
            if _UNCLEAR.fullmatch(line.rstrip("\r")):
                raise refuse(
                    path, number,
                    "the line ends with two backslashes, which is a backslash and not a line that "
                    "goes on; put quotes around the value",
                )  # fmt: skip
            continued = _CONTINUED.fullmatch(line.rstrip("\r")) is not None
    return "\n".join(lines) + "\n\n"


def load(path: Path, shown: str) -> Recipe:
    """Parse the Dockerfile at `path`; `shown` is how messages name it.

    A byte order mark at its start does not count. Raises BuilderError as `parse` does, and for a
    file that cannot be read or is not UTF-8.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"), shown)
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{shown}: the recipe cannot be read ({error})") from None


def _instruction(name: str, value: str, line: int, path: str) -> Instruction:
    if name not in _FLAGS and name not in _PLAIN:
        way = _WAYS_OUT.get(name, "see docs/builder.md for the instructions there are")
        raise refuse(path, line, f"{name} is not supported: {way}")
    if "<<" in value and name in ("COPY", "ADD"):
        raise refuse(path, line, f"{name} with a here-document is not supported: put it in a file")
    try:
        flags, rest = _flags(name, value.strip())
    except BuilderError as error:
        raise refuse(path, line, error) from None
    if not rest:
        raise refuse(path, line, f"{name} needs a value")
    return Instruction(name, line, flags, rest)


def _flags(name: str, text: str) -> tuple[dict[str, str], str]:
    """Return the flags that `text` begins with, freed of quotes, and what follows them."""
    flags: dict[str, str] = {}
    while text.startswith("--"):
        match = _FLAG.match(text)
        flag, equals, value = re.sub(r"\\(.)|['\"]", r"\1", match[1] if match else "").partition(
            "="
        )
        if match is None or flag not in _FLAGS.get(name, ()):
            known = ", ".join(sorted("--" + known for known in _FLAGS.get(name, ()))) or "no flags"
            shown = f"--{flag}" if match else text.split(maxsplit=1)[0]
            raise BuilderError(f"{name} {shown} is not supported; there are {known}")
        if flag in flags:
            raise BuilderError(f"{name} --{flag} stands there twice; leave one of them out")
        if not equals and flag != "link":
            raise BuilderError(f"{name} --{flag} needs a value; write --{flag}=value")
        flags[flag] = value
        text = text[match.end() :]
    return flags, text


def _from(instruction: Instruction, path: str) -> tuple[str, str]:
    words = instruction.value.split()
    if len(words) == 1:
        return words[0], ""
    if len(words) == 3 and words[1].upper() == "AS":
        alias = words[2].lower()
        if not _STAGE.fullmatch(alias):
            raise refuse(
                path, instruction.line,
                f"AS {words[2]} is no name of a stage; begin with a letter, and write letters, "
                "digits, - _ and . after it",
            )  # fmt: skip
        return words[0], alias
    raise refuse(path, instruction.line, "FROM is `FROM base` or `FROM base AS name`")


def filled(text: str, variables: Mapping[str, str], what: str) -> str:
    """Return `text` expanded; raises BuilderError where nothing is left of it.

    Engines pass an empty value over, and the image then has other rights or files than the recipe
    seems to say: no USER is root, no --chown is root's, an empty source is the whole context.
    `what` names the value for the message.
    """
    if found := expand(text, variables):
        return found
    names = [name for name in dict.fromkeys(_VARIABLE.findall(text)) if not variables.get(name)]
    if not names:
        raise BuilderError(f"{what} is empty; write a value")
    raise BuilderError(
        f"{what} {text} is empty, because {' and '.join(names)} has no value here; write "
        f"`ARG {names[0]}=value` before this line in the same stage"
    )


def words(instruction: Instruction, variables: Mapping[str, str]) -> list[str]:
    """Return the words of COPY, ADD, EXPOSE, VOLUME …: a JSON array, or words between white space.

    Raises BuilderError for a word that is empty once its variables are replaced.
    """
    found = exec_words(instruction.value) or _SPACE.split(instruction.value)
    return [filled(word, variables, instruction.name) for word in found]


def pairs(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the key=value pairs of ENV and LABEL (also the old `ENV key value`)."""
    if "=" not in split(instruction.value)[0]:
        key, *content = _SPACE.split(instruction.value, maxsplit=1)
        if not content:
            raise BuilderError(f"{key!r} is not key=value")
        return {_key(key, variables): expand(content[0], variables)}
    found: dict[str, str] = {}
    for word in split(instruction.value):
        key, equals, value = word.partition("=")
        if not equals:
            raise BuilderError(f"{word!r} is not key=value")
        found[_key(key, variables)] = expand(value, variables)
    return found


def _key(text: str, variables: Mapping[str, str]) -> str:
    key = expand(text, variables)
    if not key:
        raise BuilderError(f"the name {text!r} before = is empty; write a name")
    return key


def declared(
    instruction: Instruction, variables: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that an ARG sets: to its default, or else to the value in `given`.

    A name that has neither is left out: it keeps the value it has, if any.
    """
    found: dict[str, str] = {}
    for word in split(instruction.value):
        key, equals, content = word.partition("=")
        name = _key(key, variables)
        if equals:
            found[name] = expand(content, variables)
        elif name in given:
            found[name] = given[name]
    return found


def arguments(recipe: Recipe) -> dict[str, str]:
    """Return the ARGs before the first FROM that have values."""
    found: dict[str, str] = {}
    for instruction in recipe.arguments:
        try:
            found |= declared(instruction, found, {})
        except BuilderError as error:
            raise refuse(recipe.path, instruction.line, error) from None
    return found


def exec_words(value: str) -> list[str] | None:
    """Return the words of an exec form, `["a", "b"]`, or None where it is a shell form.

    Raises BuilderError for a list of something else than text, and for one that words follow:
    older engines pass these words over, newer ones take all of it for a shell form.
    """
    text = value.strip()
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise BuilderError(f"{text[:end]} is a list of more than text; put every word in quotes")
    if text[end:].strip():
        raise BuilderError(
            f"{text[end:].strip()!r} follows the list {text[:end]}; take it into the list"
        )
    if any("\ud800" <= char <= "\udfff" for word in found for char in word):
        raise BuilderError(f"{text} holds a part of a character; write the character itself")
    return [str(word) for word in found]
