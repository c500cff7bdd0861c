"""Which target stands on which: read from the recipes alone, drawn as text, Mermaid or SVG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from builder.build.workspace import Target, Workspace
from builder.dockerfile import recipe
from builder.dockerfile.shellwords import expand
from builder.errors import BuilderError

# A target -> the targets that it begins FROM or copies from.
Needs = Mapping[str, frozenset[str]]


def needs(workspace: Workspace, names: Sequence[str] = ()) -> Needs:
    """Return what each target of the workspace, and each variant among `names`, stands on directly.

    A recipe that is refused (`unread`) is one that names nothing.
    """
    refused = unread(workspace, names)
    return {
        name: frozenset() if name in refused else _mentioned(target) & workspace.targets.keys()
        for name, target in _chosen(workspace, names).items()
    }


def unread(workspace: Workspace, names: Sequence[str] = ()) -> dict[str, BuilderError]:
    """Return the targets, and variants among `names`, whose recipes are refused, and why."""
    found = {}
    for name, target in _chosen(workspace, names).items():
        try:
            _mentioned(target)
        except BuilderError as error:
            found[name] = error
    return found


def _chosen(workspace: Workspace, names: Sequence[str]) -> dict[str, Target]:
    variants = {name: one for name, one in workspace.variants.items() if name in names}
    return {**workspace.targets, **variants}


def _mentioned(target: Target) -> frozenset[str]:
    """Return every name a recipe gives after FROM or --from=, its own stages left out."""
    arguments = recipe.arguments(target.recipe)
    names: set[str] = set()
    aliases: set[str] = set()
    for stage in target.recipe.stages:
        said = [stage.base, *(i.flags["from"] for i in stage.instructions if "from" in i.flags)]
        names |= {expand(name, arguments) for name in said} - aliases
        aliases.add(stage.alias)
    return frozenset(names)


def dependents(graph: Needs) -> dict[str, list[str]]:
    """Return the targets that stand on each target directly, sorted.

    >>> dependents({"base": frozenset(), "train": frozenset({"base"})})
    {'base': ['train'], 'train': []}
    """
    return {name: sorted(n for n, below in graph.items() if name in below) for name in graph}


def with_needs(graph: Needs, names: Sequence[str]) -> list[str]:
    """Return `names` and all that they stand on, once each.

    >>> with_needs({"base": frozenset(), "train": frozenset({"base"})}, ["train"])
    ['train', 'base']
    """
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        found[name] = None
        waiting += [below for below in sorted(graph.get(name, ())) if below not in found]
    return list(found)


def ranks(graph: Needs) -> dict[str, int]:
    """Return how many steps each target is above what stands on nothing.

    Raises BuilderError where targets need each other.

    >>> ranks({"base": frozenset(), "a": frozenset({"base"}), "b": frozenset({"a", "base"})})
    {'base': 0, 'a': 1, 'b': 2}
    """
    found: dict[str, int] = {}

    def rank(name: str, chain: tuple[str, ...]) -> int:
        if name in chain:
            raise BuilderError(f"targets need each other: {' -> '.join((*chain, name))}")
        if name not in found:
            below = [rank(other, (*chain, name)) for other in sorted(graph[name])]
            found[name] = 1 + max(below, default=-1)
        return found[name]

    for name in graph:
        rank(name, ())
    return found


def text(graph: Needs, marked: Collection[str] = ()) -> str:
    """Return one line a target: what stands on it, directly; `marked` ones carry a star."""
    above, rank = dependents(graph), ranks(graph)
    width = max(map(len, graph))
    return "".join(
        f"{'*' if name in marked else ' '} {name.ljust(width)}  {_users(above[name])}\n"
        for name in sorted(graph, key=lambda name: (rank[name], name))
    )


def _users(names: list[str]) -> str:
    return f"<- {', '.join(names)}" if names else "no dependents"


def mermaid(graph: Needs, marked: Collection[str] = ()) -> str:
    """Return the graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
    # Names are given as labels: some (`end`) would be Mermaid's own words.
    number = {name: f"t{index}" for index, name in enumerate(sorted(graph))}
    lines = ["flowchart LR"]
    lines += [f'    {number[name]}["{name}"]' for name in number]
    lines += [
        f"    {number[below]} --> {number[name]}"
        for name in number
        for below in sorted(graph[name])
    ]
    if chosen := sorted(number[name] for name in marked):
        lines += ["    classDef marked stroke-width:4px", f"    class {','.join(chosen)} marked"]
    return "\n".join(lines) + "\n"


# Pixels of the drawing: a box, the space between columns and between rows, the margin.
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 132, 34, 72, 18, 16

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="sans-serif" font-size="13">
<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 8 4 0 8z" fill="#667"/></marker>"""


def svg(graph: Needs, marked: Collection[str] = ()) -> str:
    """Return the graph as an SVG: a column a rank, arrows from what is stood on to who stands."""
    rank = ranks(graph)
    columns = [sorted(n for n in graph if rank[n] == r) for r in range(max(rank.values()) + 1)]
    tallest = max(map(len, columns))
    corner = {}
    for across, column in enumerate(columns):
        shift = (tallest - len(column)) * (_HEIGHT + _DOWN) // 2
        for down, name in enumerate(column):
            corner[name] = (
                _MARGIN + across * (_WIDTH + _ACROSS),
                _MARGIN + shift + down * (_HEIGHT + _DOWN),
            )
    width = 2 * _MARGIN + len(columns) * (_WIDTH + _ACROSS) - _ACROSS
    height = 2 * _MARGIN + tallest * (_HEIGHT + _DOWN) - _DOWN
    parts = [_HEAD.format(width=width, height=height)]
    for name in sorted(graph):
        parts += [_arrow(corner[below], corner[name]) for below in sorted(graph[name])]
    parts += [_box(name, corner[name], name in marked) for name in sorted(graph)]
    return "\n".join([*parts, "</svg>\n"])


def _arrow(below: tuple[int, int], above: tuple[int, int]) -> str:
    x0, y0 = below[0] + _WIDTH, below[1] + _HEIGHT // 2
    x1, y1 = above[0], above[1] + _HEIGHT // 2
    middle = (x0 + x1) // 2
    return (
        f'<path d="M{x0} {y0}C{middle} {y0} {middle} {y1} {x1} {y1}" fill="none" stroke="#667" '
        'marker-end="url(#tip)"/>'
    )


def _box(name: str, corner: tuple[int, int], marked: bool) -> str:
    (x, y), fill = corner, "#ffe08a" if marked else "#eef2f7"
    middle = x + _WIDTH // 2, y + _HEIGHT // 2
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="{fill}" '
        f'stroke="#334"/><text x="{middle[0]}" y="{middle[1]}" fill="#112" text-anchor="middle" '
        f'dominant-baseline="central">{escape(name)}</text>'
    )
