"""Plates of Opera Phenix and Operetta microscopes, as Harmony (PerkinElmer, Revvity) exports them.

A folder Images holds the pictures and Index.idx.xml (HarmonyV5) or Index.xml (HarmonyV6, V7), which
has an element Image a picture: State, URL, Row, Col, FieldID, PlaneID, TimepointID, ChannelID. The
channel's name and size stand there too (V5), or in an element Entry a channel (V6, V7).
Format: not published; after exports that others describe. A flat-field profile is left alone.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from common.errors import StageError
from common.kinds.inventory import (
    Folder,
    Inventory,
    Plane,
    micrometres,
    named_file,
    one_size,
    some,
)
from common.kinds.markup import attributes, local, namespace, pieces, texts, whole

TITLE = "Opera Phenix or Operetta (Harmony)"
DOCUMENTS = ("index.idx.xml", "index.xml")
VERSIONS = ("HarmonyV5", "HarmonyV6", "HarmonyV7")
_ROOT = "EvaluationInputData"
_WANTED = {"Images/Image", "Plates/Plate", f"{_ROOT}/Plate", "Map/Entry"}


def signs(folder: Folder) -> str:
    """Say why the folder looks like one of Harmony, or nothing."""
    found = [path for path in folder.files if path.name.lower() in DOCUMENTS]
    return f"it holds {folder.shown(found[0])}" if found else ""


def read(folder: Folder) -> Inventory:
    """Return the pictures that the index names. Raises StageError for one not understood."""
    documents = [path for path in folder.files if path.name.lower() in DOCUMENTS]
    if len(documents) != 1:
        named = some([folder.shown(path) for path in documents], 3)
        raise StageError(
            f"the folder holds {'several plates (' + named + ')' if documents else 'no Index.xml'};"
            " give the folder of one exported measurement"
        )
    return _Index(folder, documents[0]).read()


class _Index:
    """One index while it is read."""

    def __init__(self, folder: Folder, document: Path) -> None:
        self.folder, self.document, self.name = folder, document, folder.shown(document)
        self.planes: list[Plane] = []
        self.channels: dict[str, str] = {}
        self.sizes: dict[tuple[int, int], str] = {}
        self.pixel_sizes: set[float | None] = set()
        self.plates: list[tuple[int, int]] = []
        self.flat: set[str] = set()
        self.states: Counter[str] = Counter()

    def read(self) -> Inventory:
        for number, element in enumerate(pieces(self.document, self.name, _WANTED)):
            if number == 0:
                self._root(element)
            elif local(element.tag) == "Image":
                self._image(element)
            elif local(element.tag) == "Entry":
                self._entry(element)
            else:
                facts = texts(element)
                rows, columns = (
                    whole(facts, key, f"{self.name}, Plate")
                    for key in ("PlateRows", "PlateColumns")
                )
                self.plates.append((rows, columns))
        if len(self.plates) != 1:
            raise StageError(
                f"{self.name} describes {len(self.plates)} plates; export each measurement alone"
            )
        if len(self.sizes) > 1:
            shapes = " and ".join(f"{w} x {h} ({of})" for (w, h), of in self.sizes.items())
            raise StageError(f"{self.name} names images of several sizes: {shapes}")
        listed = {plane.path for plane in self.planes}
        return Inventory(
            planes=tuple(self.planes),
            channels=self.channels or dict.fromkeys((p.channel for p in self.planes), ""),
            documents=(self.document,),
            unused=tuple(
                p
                for p in self.folder.files
                if p.suffix.lower() in {".tif", ".tiff"} and p not in listed
            ),
            size=next(iter(self.sizes), None),
            pixel_size=one_size(self.pixel_sizes),
            rows=self.plates[0][0],
            columns=self.plates[0][1],
            notes=tuple(self._notes()),
        )

    def _root(self, element: Element) -> None:
        version = namespace(element).rpartition("/")[2]
        if local(element.tag) != _ROOT or version not in VERSIONS:
            raise StageError(
                f"{self.name} begins with {element.tag[:120]}, not with {_ROOT} of "
                f"{', '.join(VERSIONS)}; export the plate with one of these versions of Harmony"
            )

    def _image(self, element: Element) -> None:
        facts = texts(element)
        if facts.get("State", "Ok") != "Ok" or not facts.get("URL"):
            self.states[facts.get("State", "Ok") if facts.get("URL") else "no file"] += 1
            return
        name = f"{self.name}, Image {facts.get('id', facts['URL'])[:60]}"
        row, column, site, z, t, channel = (
            whole(facts, key, name, default)
            for key, default in (
                ("Row", None), ("Col", None), ("FieldID", None), ("PlaneID", 1), ("TimepointID", 0),
                ("ChannelID", None),
            )
        )  # fmt: skip
        path = named_file(self.document.parent, facts["URL"], self.name)
        self.planes.append(Plane(row, column, str(site), str(channel), z, t, path))
        self._channel(str(channel), facts, name)
        self._pixel_size(element)

    def _entry(self, element: Element) -> None:
        channel = attributes(element).get("ChannelID", "")
        facts = texts(element)
        if "FlatfieldProfile" in facts:
            self.flat.add(channel)
        self._channel(channel, facts, f"{self.name}, channel {channel[:20]}")
        self._pixel_size(element)

    def _pixel_size(self, element: Element) -> None:
        """Note the width of a pixel, which stands with each image (V5) or channel (V6, V7)."""
        for child in element:
            if local(child.tag) == "ImageResolutionX":
                unit = attributes(child).get("Unit")
                self.pixel_sizes.add(micrometres((child.text or "").strip(), unit))

    def _channel(self, channel: str, facts: dict[str, str], name: str) -> None:
        if "ImageSizeX" in facts:
            size = whole(facts, "ImageSizeX", name), whole(facts, "ImageSizeY", name)
            self.sizes.setdefault(size, name)
        known = self.channels.setdefault(channel, facts.get("ChannelName", ""))
        if not known:
            self.channels[channel] = facts.get("ChannelName", "")
        elif facts.get("ChannelName", known) != known:
            raise StageError(
                f"{self.name} calls channel {channel} both {known!r} and "
                f"{facts['ChannelName']!r}; export each measurement alone"
            )

    def _notes(self) -> list[str]:
        notes = []
        for state, count in sorted(self.states.items()):
            notes.append(f"{self.name} has {count} images of the state {state[:40]!r}: not used")
        if self.flat:
            notes.append(
                f"{self.name} has flat-field profiles of the channels "
                f"{', '.join(sorted(self.flat))}; the images are used as they are, uncorrected"
            )
        return notes
