"""What the instructions of a recipe make of an image: the plan of its layers and its config."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from builder import oci
from builder.build.plan import CREATED, ImagePlan, LayerStep, action_key
from builder.build.workspace import Target, Workspace
from builder.dockerfile import accounts, adding, copying, instructions, recipe
from builder.errors import BuilderError
from builder.oci import layer
from builder.oci.entry import Entry
from builder.oci.layer_plan import LayerPlan
from builder.oci.overlay import NOTHING, Below
from builder.packages import bytecode, debian, wheels
from builder.packages.python import Python
from builder.platform import NATIVE, Platform
from builder.store import Store

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the builder itself makes: COPY --from=NAME / takes the whole of it.
CONTEXTS = ("bytecode", "debian", "wheels")


ImageOf = Callable[[ImagePlan], tuple[Store, oci.Image]]


class Plans(Protocol):
    """What the evaluation of a recipe asks of the plans around it."""

    workspace: Workspace
    downloads: Path
    image_of: ImageOf
    platform: Platform

    def target(self, name: str, chain: tuple[str, ...] = ()) -> ImagePlan:
        """Return the plan of another target."""

    def pinned(self, name: str) -> ImagePlan:
        """Return the plan of an image of a registry."""

    def below(self, plan: ImagePlan) -> Below:
        """Return what a layer is laid over."""

    def interpreter(self, plan: ImagePlan) -> bytecode.Interpreter:
        """Return the Python of an image."""

    def take(self, sources: Sequence[str]) -> list[copying.Taken]:
        """Return what `sources` name in the workspace."""

    def native(self) -> Plans:
        """Return the plans of the same workspace for NATIVE, whose programs can be run here."""

    def hash(self, path: Path) -> str:
        """Return a file's SHA-256."""


def _automatic(platform: Platform) -> dict[str, str]:
    """Return what BuildKit sets by itself, in an ARG that asks for it.

    https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope. What
    builds is always said to be NATIVE, so that the machine that builds reaches no digest.
    """
    return {
        f"{who}{what}": value
        for who, one in (("TARGET", platform), ("BUILD", NATIVE))
        for what, value in (("PLATFORM", one.name), ("OS", "linux"), ("ARCH", one.architecture))
    }


class Evaluation:
    """The evaluation of one Dockerfile, stage after stage."""

    def __init__(self, plans: Plans, target: Target, chain: tuple[str, ...]) -> None:
        self.plans = plans
        self.target = target
        self.chain = chain
        self.aliases: dict[str, ImagePlan] = {}
        # What the variables of an earlier stage are at its end: FROM goes on from there.
        self.variables: dict[str, dict[str, str]] = {}
        # Which Pythons wheels were asked for, also where their lock is not there yet.
        self.pythons: list[Python] = []
        self.arguments = _automatic(plans.platform) | recipe.arguments(target.recipe)

    def plan(self) -> ImagePlan:
        """Return the plan of the last stage."""
        found = None
        for index, stage in enumerate(self.target.recipe.stages):
            try:
                evaluated = _Stage(self, stage)
                found = evaluated.plan()
            except BuilderError as error:
                raise recipe.refuse(self.target.recipe.path, stage.line, error) from None
            for name in (stage.alias, str(index)):
                if name:
                    self.aliases[name] = found
                    self.variables[name] = evaluated.variables
        assert found is not None
        return found

    def image(self, name: str, line: int) -> ImagePlan:
        """Return the plan of the image `name`: an earlier stage, a target, or by digest."""
        if name.lower() in self.aliases:
            return self.aliases[name.lower()]
        if name in self.plans.workspace.targets:
            return self.plans.target(name, self.chain)
        if "/" in name or "@" in name:
            try:
                return self.plans.pinned(name)
            except BuilderError as error:
                raise recipe.refuse(self.target.recipe.path, line, error) from None
        known = ", ".join([*self.aliases, *self.plans.workspace.targets])
        raise recipe.refuse(
            self.target.recipe.path, line,
            f"{name!r} is no target and no earlier stage of this recipe; there are {known}, and "
            "images of registries as host/repository@sha256:…",
        )  # fmt: skip


class _Stage:
    """The evaluation of what follows one FROM."""

    def __init__(self, outer: Evaluation, stage: recipe.BuildStage) -> None:
        self.outer, self.stage, self.path = outer, stage, outer.target.recipe.path
        if stage.platform:
            asked = recipe.filled(stage.platform, outer.arguments, "FROM --platform=")
            if asked != outer.plans.platform.name:
                raise recipe.refuse(
                    self.path, stage.line,
                    f"FROM --platform={asked}: the image that is built here is for "
                    f"{outer.plans.platform.name}; leave the flag out",
                )  # fmt: skip
        base = recipe.filled(stage.base, outer.arguments, "FROM")
        self.base = None if base == "scratch" else outer.image(base, stage.line)
        config: Mapping[str, Any] = self.base.config if self.base else {}
        self.config: dict[str, Any] = dict(
            config.get("config") or {"Env": [_PATH], "WorkingDir": "/"}
        )
        self.history: list[dict[str, Any]] = _history(self.base)
        # An ARG holds on in the stages that are FROM its own, as with BuildKit; another recipe's
        # image brings its ENV alone.
        inherited = outer.variables.get(base.lower())
        self.variables = dict(inherited or instructions.environment(self.config))
        self.seen: set[str] = set()
        self.needs: list[ImagePlan] = []
        self.layers: list[LayerStep] = []
        self.native = list(self.base.native) if self.base else []
        self.folders = {copying.normal(self.workdir), ""}
        self.line = stage.line

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    def plan(self) -> ImagePlan:
        for instruction in self.stage.instructions:
            self.line = instruction.line
            try:
                self._evaluate(instruction)
            except BuilderError as error:
                raise recipe.refuse(self.path, instruction.line, error) from None
        return self._image_plan()

    def _image_plan(self) -> ImagePlan:
        config = {
            **self.outer.plans.platform.oci,
            "created": CREATED,
            "config": dict(self.config),
            "history": list(self.history),
        }
        key = action_key(
            {
                "base": self.base.key if self.base else "",
                "layers": [step.key for step in self.layers],
                "config": config,
            }
        )
        name = self.outer.target.name
        return ImagePlan(
            name, key, self.base, tuple(self.needs), tuple(self.layers), config,
            native=tuple(self.native),
        )  # fmt: skip

    def _evaluate(self, instruction: recipe.Instruction) -> None:
        if instructions.apply(self.config, instruction, self.variables, self.seen):
            self.seen.add(instruction.name)
            if instruction.name == "ENV":
                self.variables |= instructions.environment(self.config)
            return
        name = "_add_file" if instruction.name == "ADD" else "_" + instruction.name.lower()
        getattr(self, name)(instruction)

    def _add(self, plan: LayerPlan, line: str, below: Sequence[str] = (), shape: str = "") -> None:
        """Add a layer; `below` is the shape of what it is laid over, where that matters."""
        value = {"layer": plan.inputs, "line": line, "format": layer.FORMAT, "below": list(below)}
        key = action_key(value)
        self.layers.append(LayerStep(key, plan, line, self.line, shape or key))
        self.history.append({"created": CREATED, "created_by": line})

    # Each method is an instruction's meaning.

    def _arg(self, instruction: recipe.Instruction) -> None:
        self.variables |= recipe.declared(instruction, self.variables, self.outer.arguments)

    def _workdir(self, instruction: recipe.Instruction) -> None:
        path = posixpath.normpath(
            posixpath.join(
                self.workdir, recipe.filled(instruction.value, self.variables, "WORKDIR")
            )
        )
        self.config["WorkingDir"] = path
        if copying.normal(path) in self.folders:
            return
        self.folders.add(copying.normal(path))
        owner = str(self.config.get("User") or "0")
        known = owner if accounts.numeric(owner) else "0"
        inputs = {**_describe(copying.folder(path, known, NOTHING), {}), "owner": owner}
        self._lay(
            f"folder {path}",
            f"WORKDIR {path}",
            inputs,
            lambda below: copying.folder(path, owner, below),
            owner=owner,
            shape=action_key(inputs),
        )

    def _add_file(self, instruction: recipe.Instruction) -> None:
        sources, destination, flags = self._taken(instruction)
        source = adding.parse(sources, flags)
        copy = self._copying((source.source,), destination, flags)
        downloads = self.outer.plans.downloads
        line = _line("ADD", flags, sources, destination)
        self._later(line, source.inputs(), lambda: source.entries(downloads), copy)

    def _copy(self, instruction: recipe.Instruction) -> None:
        sources, destination, flags = self._taken(instruction)
        line = _line("COPY", flags, sources, destination)
        source = flags.get("from", "")
        if source in CONTEXTS:
            self._context(source, sources, destination, line)
            return
        copy = self._copying(tuple(sources), destination, flags)
        if source:
            image = self.outer.image(source, instruction.line)
            self.needs.append(image)
            image_of = self.outer.plans.image_of

            def found() -> Sequence[Entry]:
                from builder.sandbox.unpack import image_entries

                return image_entries(*image_of(image))

            self._later(line, {"from": image.key}, found, copy)
            return
        taken = self.outer.plans.take(sources)
        # Where it lands and whose it is depend on what is below; what it is does not.
        known = copy if accounts.numeric(copy.owner) else replace(copy, owner="")
        entries = copying.place(known, taken, NOTHING)
        hashes = {entry.path: self._hash(entry) for entry in entries if entry.kind == "file"}
        names = [source.name for source in taken]
        inputs = {**_describe(entries, hashes), "names": names, "workdir": copy.workdir}
        shape = _describe([entry for entry in entries if entry.kind != "file"], {})
        self._lay(
            " ".join(sources),
            line,
            inputs,
            lambda below: copying.place(copy, taken, below),
            link=copy.link,
            owner=copy.owner,
            shape=action_key({**shape, **copy.inputs(), "names": names}),
            files={e.path: e.content for e in entries if isinstance(e.content, Path)},
        )

    def _taken(self, instruction: recipe.Instruction) -> tuple[list[str], str, dict[str, str]]:
        """Return the sources, the destination and the flags of a COPY or ADD, expanded."""
        words = recipe.words(instruction, self.variables)
        if len(words) < 2:
            raise BuilderError(f"{instruction.name} needs a source and a destination")
        flags = {
            name: value if name == "link" else recipe.filled(value, self.variables, f"--{name}=")
            for name, value in instruction.flags.items()
        }
        return words[:-1], words[-1], flags

    def _copying(
        self, sources: tuple[str, ...], destination: str, flags: Mapping[str, str]
    ) -> copying.Copy:
        if destination.endswith("/") or destination in (".", "./"):
            self.folders.add(copying.normal(posixpath.join(self.workdir, destination)))
        if flags.get("link", "") not in ("", "true", "false"):
            raise BuilderError(f"--link={flags['link']} is not understood; write true or false")
        link = flags.get("link", "false") in ("", "true")
        owner = accounts.complete(flags["chown"], "--chown=") if "chown" in flags else ""
        if link and not accounts.numeric(owner):
            raise BuilderError(
                f"--chown={owner} with --link, which looks at no /etc/passwd; write the number"
            )
        return copying.Copy(sources, destination, self.workdir, owner, _mode(flags), link=link)

    def _later(
        self,
        line: str,
        inputs: Mapping[str, Any],
        found: Callable[[], Sequence[Entry]],
        copy: copying.Copy,
    ) -> None:
        """Add a layer of what `found` will return, which depends on `inputs`."""

        def place(below: Below) -> list[Entry]:
            return copying.place(copy, copying.take(copy.sources, copying.Listed(found())), below)

        every = {**inputs, **copy.inputs()}
        self._lay(line, line, every, place, link=copy.link, owner=copy.owner)

    def _lay(
        self,
        name: str,
        line: str,
        inputs: Mapping[str, Any],
        place: Callable[[Below], list[Entry]],
        *,
        link: bool = False,
        owner: str = "",
        shape: str = "",
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Add a layer whose entries depend on the folders and links below, unless it is a `link`.

        The key covers these by what they depend on, so that they need not be known for it; and for
        an `owner` with a name all that is below, since files say the number.
        """
        so_far, number = self._image_plan(), self.line
        below = self.outer.plans.below

        def entries() -> Iterable[Entry]:
            try:
                return place(NOTHING if link else below(so_far))
            except BuilderError as error:
                raise recipe.refuse(self.path, number, error) from None

        plan = LayerPlan(name=name, inputs=inputs, entries=entries, files=files or {})
        under = () if link else so_far.shape()
        if not accounts.numeric(owner):
            under += (so_far.base.key if so_far.base else "", *(s.key for s in so_far.layers))
        self._add(plan, line, under, shape if accounts.numeric(owner) else "")

    def _hash(self, entry: Entry) -> str:
        assert isinstance(entry.content, Path)
        return self.outer.plans.hash(entry.content)

    def _library(self, packages: LayerPlan, where: str) -> None:
        """Add the byte-code of the Python library that `packages` bring, if they do."""
        so_far = self._image_plan()
        interpreter = self.outer.plans.interpreter(so_far)
        own = f"libpython{interpreter.python.version}"
        if not any(name.startswith(own) for name, *_ in packages.inputs["debian"]):
            return

        def entries() -> Iterable[Entry]:
            return debian.library_bytecode(packages.entries(), where, interpreter)

        inputs = {"library": so_far.key, "destination": where, "format": bytecode.FORMAT}
        if self.outer.plans.platform != NATIVE:  # else it is among what the library's key covers
            inputs["bytecode"] = interpreter.key
        plan = LayerPlan(name="byte-code of the library", inputs=inputs, entries=entries)
        self._add(plan, "byte-code of the Python library")

    def _sources_bytecode(self, where: str, line: str) -> None:
        """Add the byte-code of the Python files that this stage copied from the workspace.

        It is that of the files below `where`; raises BuilderError where there are none.
        """
        folder = copying.normal(where)
        steps = [s for s in self.layers if any(_is_source(path, folder) for path in s.plan.files)]
        if self.base is None or not steps:
            raise BuilderError(
                f"COPY --from=bytecode compiles what was copied before into {where}, and no .py "
                "file was; write it after the COPY of the sources, in a stage that begins with "
                "FROM base"
            )
        interpreter = self.outer.plans.interpreter(self.base)

        def entries() -> Iterable[Entry]:
            placed = {e.path: e for step in steps for e in step.plan.entries()}
            sources = [e for path, e in placed.items() if _is_source(path, folder)]
            return map(bytecode.checked, bytecode.compile_sources(sources, interpreter))

        inputs = {
            "compiled": [step.key for step in steps], "destination": where,
            "bytecode": interpreter.key, "format": bytecode.FORMAT,
        }  # fmt: skip
        self._add(LayerPlan(name=line, inputs=inputs, entries=entries), line)

    def _context(self, name: str, sources: list[str], destination: str, line: str) -> None:
        if sources != ["/"]:
            raise BuilderError(f"only the whole context can be copied: COPY --from={name} / …")
        folder, plans = self.outer.target.folder, self.outer.plans
        where = posixpath.join(self.workdir, destination)
        if name == "bytecode":
            self._sources_bytecode(where, line)
            return
        if name == "debian":
            for plan in debian.plan(folder, plans.downloads, where, plans.platform):
                self._add(plan, line)
                if where == "/":
                    self.native += (
                        [plan] if plans.platform == NATIVE
                        else debian.plan(folder, plans.downloads, where)
                    )  # fmt: skip
                self._library(plan, where)
            return
        if self.base is None:
            raise BuilderError("wheels need a Python to compile for; begin with FROM base")
        interpreter = plans.interpreter(self.base)
        self.outer.pythons.append(interpreter.python)
        base = self.base

        def make() -> None:
            from builder.packages import sdist  # it and the sandbox cost time to load

            if (folder / sdist.WANTED).exists():
                from builder.build import sdists
                from builder.sandbox import wheel_build

                named, chain, native = sdist.asked(folder).image, self.outer.chain, plans.native()
                wanted = sdist.read_lock(folder)
                if native is plans:
                    plan = plans.target(named, chain) if named else base
                else:  # a wheel that is compiled here is for NATIVE alone
                    plan = native.target(named or base.name, chain)
                    wanted = [made for made in wanted if wheel_build.is_pure(made.wheel)]
                own = replace(interpreter.python, platform=NATIVE)
                sdists.make(wanted, lambda: plans.image_of(plan), own)

        asked = self.outer.target.requirements
        for plan in wheels.plan(asked, plans.downloads, where, interpreter, make):
            self._add(plan, f"{line} # {plan.name}")


def _is_source(path: str, folder: str) -> bool:
    return path.endswith(".py") and (not folder or path.startswith(f"{folder}/"))


def _line(name: str, flags: Mapping[str, str], sources: Sequence[str], destination: str) -> str:
    """Return a COPY or ADD as history shows it, its variables replaced."""
    return " ".join(
        (name, *(f"--{n}={v}" if v else f"--{n}" for n, v in flags.items()), *sources, destination)
    )


def _history(base: ImagePlan | None) -> list[dict[str, Any]]:
    """Return the history that a stage goes on from, with a line for each layer of its base."""
    if base is None:
        return []
    history = list(base.config.get("history") or ())
    told = sum(not entry.get("empty_layer") for entry in history)
    layers = len(base.pulled.layers) if base.pulled else told
    return [{"created": CREATED, "created_by": ""}] * (layers - told) + history


def _describe(entries: Sequence[Entry], hashes: Mapping[str, str]) -> dict[str, Any]:
    rows = [[e.path, e.kind, e.mode, e.uid, e.gid, e.target or hashes.get(e.path, "")]
            for e in sorted(entries, key=lambda entry: entry.path)]  # fmt: skip
    return {"entries": rows}


def _mode(flags: Mapping[str, str]) -> int | None:
    if "chmod" not in flags:
        return None
    try:
        return int(flags["chmod"], 8) & 0o7777
    except ValueError:
        raise BuilderError(
            f"--chmod={flags['chmod']} is not an octal number such as 0755"
        ) from None
