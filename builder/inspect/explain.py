"""Why a target would be built again: its plan against the record of the last build."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.build.make import Builder, ignore, remembered
from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.oci import canonical
from builder.platform import NATIVE, Platform
from builder.store import Store, builds

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputChange:
    """One input that differs: `kind` of thing, its name, what it was, what it is, and where.

    `where` is the recipe's file and line; an empty `old` or `new` stands for none.
    """

    kind: str
    name: str
    old: str
    new: str
    where: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a build of `target` would do, and the changes since the last build in this checkout.

    `known` says that the store has the image; otherwise `making` names the layers that would be
    made, of `layers` in all. `source` is the cache that the image came from, empty for one that was
    made here, and `signer` the trusted key that signed it there. `first` says that there is no last
    build to compare with.
    """

    target: str
    known: bool
    first: bool
    changes: tuple[InputChange, ...]
    making: tuple[str, ...]
    layers: int
    source: str = ""
    signer: str = ""

    def sentence(self) -> str:
        """Return the answer in one sentence, and where the image came from if that was a cache."""
        by = f", signed by {self.signer}," if self.signer else ""
        came = f"; it came{by} from the cache {self.source} and was not made here"
        return self._answer() + (came if self.known and self.source else "")

    def _answer(self) -> str:
        if self.known and not self.changes and not self.first:
            return f"{self.target} would not be rebuilt: nothing has changed since its last build"
        if self.known:
            return (
                f"{self.target} would not be rebuilt: the store has this image from another build"
            )
        count = f"{len(self.making)} of {self.layers} layers would be made"
        if self.first:
            return f"{self.target} would be built for the first time in this checkout: {count}"
        if not self.changes:
            return f"{self.target} would be rebuilt: the store has lost parts of it; {count}"
        return f"{self.target} would be rebuilt: {count}"


def explain(
    workspace: Workspace, store: Store, name: str, platform: Platform = NATIVE
) -> Explanation:
    """Compare the plan of the target `name` for `platform` with its last build; nothing is built.

    Raises BuilderError for a target there is not, and for recipes and locks that are refused.
    """
    builder = Builder(workspace, store, 1, ignore, None, need_layers=True, platform=platform)
    plan = builder.plans([name])[name]
    before = builds.record(store, workspace.root, remembered(name, platform))
    recipes = {target.name: target.path for target in workspace.every.values()}
    found = changes(before, plan.record(), recipes) if before else ()
    known = builder.known(plan, whole=True) is not None
    source, signer = builder.source(plan)
    steps = plan.layers
    making = [] if known else [s.plan.name for s in steps if builder.known_layer(s) is None]
    sources = dict(_sources(plan, workspace.root))
    return Explanation(
        target=name, known=known, first=before is None, making=tuple(making), layers=len(steps),
        source=source, signer=signer,
        changes=tuple(
            InputChange(c.kind, sources.get(c.name, c.name), c.old, c.new, _line(workspace, c))
            for c in found
        ),
    )  # fmt: skip


def _line(workspace: Workspace, change: InputChange) -> str:
    """Return where a change is, with the line of the last instruction that sets a setting."""
    name, _, key = change.name.partition(" ")
    lines = [
        instruction.line
        for target in workspace.targets.values()
        if target.path == change.where and change.kind == "setting"
        for stage in target.recipe.stages
        for instruction in stage.instructions
        if instruction.name == name and key in instruction.value
    ]
    return f"{change.where}:{lines[-1]}" if lines else change.where


def _sources(plan: ImagePlan, root: Path) -> Iterator[tuple[str, str]]:
    """Yield for each file that is copied from the repository its path in the image and there."""
    for image in (plan, *plan.needs, *([plan.base] if plan.base else [])):
        if image is not plan:
            yield from _sources(image, root)
    for step in plan.layers:
        for path, file in step.plan.files.items():
            yield f"/{path}", file.relative_to(root).as_posix()


def changes(old: Record, new: Record, recipes: Mapping[str, str]) -> list[InputChange]:
    """Return what differs between two records of one image, what it stands on included; pure.

    `recipes` gives the path of a target's recipe. Empty where the keys are equal, and never where
    they differ.
    """
    if old["key"] == new["key"]:
        return []
    recipe = recipes.get(new["name"], new["name"])
    found: list[InputChange] = []
    if old["format"] != new["format"]:
        was, now = (" ".join(record["format"]) for record in (old, new))
        found.append(InputChange("format", "the builder's own", was, now, ""))
    below = _below(old, new, recipes, recipe)
    one, other = _instructions(old), _instructions(new)
    found += [*_lines(one, other, recipe), *_inputs(one, other, recipe)]
    settings = _settings(old["config"], new["config"], recipe)
    inherited = {(c.name, c.old, c.new) for c in below if c.kind == "setting"}
    found += [c for c in settings if (c.name, c.old, c.new) not in inherited]
    found = list(dict.fromkeys(below + found))
    return found or [_unnamed(old, new, recipe)]


def _unnamed(old: Record, new: Record, recipe: str) -> InputChange:
    """Return what a change of the key is where no input differs: their order, or a key of a layer.

    What is compared input by input has no order; the key has, since layers and ENV are lists.
    """
    was, now = _environment(old), _environment(new)
    if was != now and sorted(was) == sorted(now):
        return InputChange("order", "ENV", " ".join(was), " ".join(now), recipe)
    before, after = _pinned(old), _pinned(new)
    if before != after and sorted(before) == sorted(after):
        return InputChange("order", "lines of the lock", " ".join(before), " ".join(after), recipe)
    return InputChange("key", "how the image is made", old["key"][:12], new["key"][:12], recipe)


def _environment(record: Record) -> list[str]:
    return [entry.partition("=")[0] for entry in record["config"].get("Env") or ()]


def _pinned(record: Record) -> list[str]:
    """Return the names of the packages in the order in which the layers have them."""
    return [
        row[0]
        for _, _, _, inputs in record["layers"]
        for kind in ("wheels", "debian")
        for row in inputs.get(kind, ())
    ]


def _below(old: Record, new: Record, recipes: Mapping[str, str], recipe: str) -> list[InputChange]:
    """Compare what two records stand on: the base, and the images copied from."""
    before, now = old["base"], new["base"]
    was, name = (record["name"] if record else "scratch" for record in (before, now))
    found = [] if was == name else [InputChange("base", "FROM", was, name, recipe)]
    pairs = [(before, now)] if not found and now else []
    # Two stages of one recipe have the same name: compared in order.
    for needed in dict.fromkeys(need["name"] for need in new["needs"]):
        one, other = ([n for n in r["needs"] if n["name"] == needed] for r in (old, new))
        pairs += list(zip(one, other, strict=False))
    return found + [change for pair in pairs for change in changes(*pair, recipes)]


# An instruction that makes layers: its text, and a number where a recipe has it more than once.
_Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Instruction:
    """What an instruction brings into an image: kind of input -> name -> what it is."""

    line: int
    inputs: Mapping[str, dict[str, Any]]


def _instructions(record: Record) -> dict[_Place, _Instruction]:
    found: dict[_Place, _Instruction] = {}
    for _, line, created_by, inputs in record["layers"]:
        # What follows " # " tells apart the layers of one instruction.
        text = created_by.partition(" # ")[0]
        earlier = [place for place in found if place[0] == text]
        if not earlier or found[earlier[-1]].line != line:
            earlier.append((text, len(earlier)))
            found[earlier[-1]] = _Instruction(line, {kind: {} for kind in _KINDS})
        group = found[earlier[-1]].inputs
        for key, value in inputs.items():
            if key == "wheels":
                group["wheel"].update({name: rest for name, *rest in value})
            elif key == "debian":
                group["deb"].update({name: rest for name, *rest in value})
            elif key == "entries":
                group["file"].update({f"/{path}": rest for path, *rest in value})
            elif key == "exclude":  # of one layer; the instruction has several
                group["input"].update({f"exclude {name}": rest for name, rest in value.items()})
            elif key not in _DERIVED:
                group["input"][key] = value
    return found


def _lines(
    before: Mapping[_Place, _Instruction], now: Mapping[_Place, _Instruction], recipe: str
) -> Iterator[InputChange]:
    """Compare which instructions there are, and their order."""
    one, other = list(before), list(now)
    gone = [place for place in one if place not in now]
    come = [place for place in other if place not in before]
    for index in range(max(len(gone), len(come))):
        was = gone[index] if index < len(gone) else None
        new = come[index] if index < len(come) else None
        line = now[new].line if new else before[was].line if was else 0
        text, other_text = was[0] if was else "", new[0] if new else ""
        yield InputChange("line", "instruction", text, other_text, f"{recipe}:{line}")
    one, other = [p for p in one if p in now], [p for p in other if p in before]
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for kind, start, end, _, _ in matcher.get_opcodes():
        for place in one[start:end] if kind in ("delete", "replace") else ():
            at, line = before[place].line, now[place].line
            yield InputChange("order", place[0], f"line {at}", f"line {line}", f"{recipe}:{line}")


def _inputs(
    before: Mapping[_Place, _Instruction], now: Mapping[_Place, _Instruction], recipe: str
) -> Iterator[InputChange]:
    """Compare what the instructions that both records have bring into the image."""
    for place in [place for place in now if place in before]:
        for kind, describe in _KINDS.items():
            one, other = before[place].inputs[kind], now[place].inputs[kind]
            for name in sorted(one.keys() | other.keys()):
                if one.get(name) != other.get(name):
                    was, new = describe(one.get(name), other.get(name))
                    yield InputChange(kind, name, was, new, f"{recipe}:{now[place].line}")


# Keys of images, and what earlier instructions made: what changed there is told by itself.
_DERIVED = {"bytecode", "library", "from", "folders", "compiled"}


def _pin(old: Sequence[str] | None, new: Sequence[str] | None) -> tuple[str, str]:
    """Show two pins, [version, sha256]: the versions, or the hashes of one version."""
    if old and new and old[0] == new[0]:
        return f"{old[0]} sha256:{old[1][:12]}", f"{new[0]} sha256:{new[1][:12]}"
    return old[0] if old else "", new[0] if new else ""


def _file(old: Sequence[Any] | None, new: Sequence[Any] | None) -> tuple[str, str]:
    """Show two rows [kind, mode, uid, gid, hash or link target]: the members that differ."""
    if old is None or new is None:
        return ("", "added") if new else ("there", "")
    names = ("kind", "mode", "uid", "gid", "content" if new[0] == "file" else "target")
    one, other = [
        [row[0], f"{row[1]:04o}", *map(str, row[2:4]), row[4][:12] if row[0] == "file" else row[4]]
        for row in (old, new)
    ]
    differ = [index for index in range(5) if old[index] != new[index]]
    return (
        ", ".join(f"{names[index]} {one[index]}" for index in differ),
        ", ".join(f"{names[index]} {other[index]}" for index in differ),
    )


def _plain(old: Any, new: Any) -> tuple[str, str]:
    return _text(old), _text(new)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else _json(value)


def _json(value: Any) -> str:
    return canonical.dumps(value).decode()


_KINDS: Mapping[str, Callable[[Any, Any], tuple[str, str]]] = {
    "wheel": _pin, "deb": _pin, "file": _file, "input": _plain,
}  # fmt: skip


def _settings(old: Record, new: Record, recipe: str) -> Iterator[InputChange]:
    """Compare two configs: ENV, LABEL and the like one by one, the others as they stand."""
    one, other = _flat(old), _flat(new)
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield InputChange("setting", name, one.get(name, ""), other.get(name, ""), recipe)


def _flat(config: Record) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in config.items():
        if name == "Env":
            found |= {f"ENV {e.partition('=')[0]}": e.partition("=")[2] for e in value or ()}
        elif name == "Labels":
            found |= {f"LABEL {label}": text for label, text in (value or {}).items()}
        else:
            found[_NAMES.get(name, name)] = _text(value)
    return found


_NAMES = {"Cmd": "CMD", "Entrypoint": "ENTRYPOINT", "User": "USER", "WorkingDir": "WORKDIR",
          "ExposedPorts": "EXPOSE", "Volumes": "VOLUME", "StopSignal": "STOPSIGNAL",
          "Healthcheck": "HEALTHCHECK"}  # fmt: skip
