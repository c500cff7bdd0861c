"""Writes simulated plates the way each microscope does, from one table of pictures.

A picture's key is (row, column, site, channel, z, t), all from 1; its value uint8 or uint16 [h, w].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

Key = tuple[int, int, int, int, int, int]
Pictures = Mapping[Key, NDArray]
NAMES = {1: "FITC & co", 2: "DAPI", 3: "Cy5"}
PATTERN = (
    r"(?P<row>[A-Z]+)(?P<column>\d+)-s(?P<field>\d+)-c(?P<channel>\d)"
    r"-z(?P<z>\d+)-t(?P<time>\d+)\.tif"
)
_GUID = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
_BTS = "http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"


def simulated(
    rows: int = 2, columns: int = 4, sites: int = 1, channels: int = 2, planes: int = 1,
    times: int = 1, size: tuple[int, int] = (256, 300), bits: int = 16, seed: int = 0,
) -> dict[Key, NDArray]:  # fmt: skip
    """Return the pictures of a plate, smooth and noisy enough that no two are alike."""
    random = np.random.default_rng(seed)
    kind = np.uint8 if bits == 8 else np.uint16
    return {
        (r, c, s, ch, z, t): random.integers(0, 1 << bits, size[::-1], dtype=kind)
        for r in range(1, rows + 1) for c in range(1, columns + 1) for s in range(1, sites + 1)
        for ch in range(1, channels + 1) for z in range(1, planes + 1) for t in range(1, times + 1)
    }  # fmt: skip


def letters(row: int) -> str:
    return ("A" if row > 26 else "") + chr(64 + (row - 1) % 26 + 1)


def numbers(pictures: Pictures, axis: int) -> list[int]:
    return sorted({key[axis] for key in pictures})


def write_names(folder: Path, pictures: Pictures) -> None:
    for (row, column, site, channel, z, t), values in pictures.items():
        name = f"{letters(row)}{column}-s{site}-c{channel}-z{z}-t{t}.tif"
        tifffile.imwrite(folder / name, values)


def write_imagexpress(folder: Path, pictures: Pictures) -> None:
    channels, steps = numbers(pictures, 3), numbers(pictures, 4)
    sites = numbers(pictures, 2)
    for (row, column, site, channel, z, t), values in pictures.items():
        inside = folder / f"TimePoint_{t}"
        if len(steps) > 1:
            inside = inside / f"ZStep_{z}"
        inside.mkdir(parents=True, exist_ok=True)
        name = f"Exp 7_{letters(row)}{column:02d}"
        name += f"_s{site}" if len(sites) > 1 else ""
        name += f"_w{channel}" if len(channels) > 1 else ""
        tifffile.imwrite(inside / f"{name}{_GUID}.tif", values)
        (inside / f"{name}_thumb{_GUID}.tif").write_bytes(b"a thumbnail, never read")
    lines = [
        '"HTSInfoFile", Version 1.0', '"Description", "µ, "', '"PlateType", 6',
        f'"TimePoints", {len(numbers(pictures, 5))}',
        f'"ZSeries", {str(len(steps) > 1).upper()}', f'"ZSteps", {len(steps)}',
        '"ZProjection", FALSE', '"XWells", 12', '"YWells", 8', '"Sites", TRUE',
        '"Waves", TRUE', f'"NWavelengths", {len(channels)}',
        *(f'"WaveName{channel}", "{NAMES[channel]}"' for channel in channels), '"EndFile"',
    ]  # fmt: skip
    (folder / "Exp 7.HTD").write_bytes("\r\n".join(lines).encode("latin-1"))


def write_harmony(folder: Path, pictures: Pictures, version: str = "V5") -> None:
    images = folder / "Images"
    images.mkdir(parents=True)
    entries, listed = [], []
    height, width = next(iter(pictures.values())).shape
    about = {
        channel: f"<ChannelName>{escape(NAMES[channel])}</ChannelName>"
        f"<ImageSizeX>{width}</ImageSizeX><ImageSizeY>{height}</ImageSizeY>"
        for channel in numbers(pictures, 3)
    }
    for (row, column, site, channel, z, t), values in pictures.items():
        name = f"r{row:02d}c{column:02d}f{site:02d}p{z:02d}-ch{channel}sk{t}fk1fl1.tiff"
        tifffile.imwrite(images / name, values, compression="lzw")
        listed.append(
            f'<Image Version="1"><id>{row:02d}{column:02d}K{t}F{site}P{z}R{channel}</id>'
            f"<State>Ok</State><URL>{name}</URL><Row>{row}</Row><Col>{column}</Col>"
            f"<FieldID>{site}</FieldID><PlaneID>{z}</PlaneID><TimepointID>{t - 1}</TimepointID>"
            f"<ChannelID>{channel}</ChannelID>{about[channel] if version == 'V5' else ''}</Image>"
        )
    for channel, text in about.items():
        flat = "<FlatfieldProfile>{Background: {Character: Null}}</FlatfieldProfile>"
        entries.append(
            f'<Entry ChannelID="{channel}">{flat}{text if version != "V5" else ""}</Entry>'
        )
    space = "43B2A954-E3C3-47E1-B392-6635266B0DD3/" if version == "V7" else (
        "http://www.perkinelmer.com/PEHH/"
    )  # fmt: skip
    plate = (
        "<Plate><PlateID>P</PlateID><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns>"
        '<Well id="0101"/></Plate>'
    )
    wells = '<Wells><Well><id>0101</id><Row>1</Row><Image id="0101K1F1P1R1"/></Well></Wells>'
    (images / ("Index.idx.xml" if version == "V5" else "Index.xml")).write_text(
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<EvaluationInputData xmlns="{space}Harmony{version}" Version="1">'
        f"<Plates>{plate}</Plates>{wells}<Maps><Map>{''.join(entries)}</Map></Maps>"
        f"<Images>{''.join(listed)}</Images></EvaluationInputData>",
        encoding="utf-8",
    )


def write_cellvoyager(folder: Path, pictures: Pictures) -> None:
    records = []
    for (row, column, site, channel, z, t), values in pictures.items():
        name = f"AS_{letters(row)}{column:02d}_T{t:04d}F{site:03d}L01A01Z{z:02d}C{channel:02d}.tif"
        tifffile.imwrite(folder / name, values)
        records.append(
            f'<bts:MeasurementRecord bts:Type="IMG" bts:Row="{row}" bts:Column="{column}" '
            f'bts:TimePoint="{t}" bts:FieldIndex="{site}" bts:ZIndex="{z}" bts:Ch="{channel}">'
            f"{name}</bts:MeasurementRecord>"
        )
    records.append(
        '<bts:MeasurementRecord bts:Type="ERR" bts:Row="1" bts:Column="1"></bts:MeasurementRecord>'
    )
    height, width = next(iter(pictures.values())).shape
    bits = next(iter(pictures.values())).dtype.itemsize * 8
    start = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<bts:%s xmlns:bts="{_BTS}" bts:Version="1.0"%s>'
    )
    (folder / "MeasurementData.mlf").write_text(
        start % ("MeasurementData", "") + "".join(records) + "</bts:MeasurementData>"
    )
    channels = numbers(pictures, 3)
    (folder / "MeasurementDetail.mrf").write_text(
        start % ("MeasurementDetail", ' bts:RowCount="8" bts:ColumnCount="12"')
        + "".join(
            f'<bts:MeasurementChannel bts:Ch="{c}" bts:HorizontalPixels="{width}" '
            f'bts:VerticalPixels="{height}" bts:InputBitDepth="{bits}"/>'
            for c in channels
        )
        + "</bts:MeasurementDetail>"
    )
    (folder / "protocol.mes").write_text(
        start % ("MeasurementSetting", "")
        + "<bts:ChannelList>"
        + "".join(f'<bts:Channel bts:Ch="{c}" bts:Target={quoteattr(NAMES[c])}/>' for c in channels)
        + "</bts:ChannelList></bts:MeasurementSetting>"
    )


def ome_xml(
    pictures: Pictures, files: Mapping[tuple[int, int, int], str], plate: bool = True
) -> str:
    """Return the OME-XML of a plate with one Image a well and site, in the order XYCZT."""
    channels, planes, times = (numbers(pictures, axis) for axis in (3, 4, 5))
    first = next(iter(pictures.values()))
    images, wells = [], {}
    for number, ((row, column, _), name) in enumerate(files.items()):
        wells.setdefault((row, column), []).append(f'<WellSample ID="WS:{number}" Index="{number}">'
            f'<ImageRef ID="Image:{number}"/></WellSample>')  # fmt: skip
        uuid = f'<UUID FileName="{name}">urn:uuid:{_GUID}</UUID>' if name else ""
        listed = "".join(f'<Channel ID="Channel:{number}:{c}" Name={quoteattr(NAMES[c])} '
                         'SamplesPerPixel="1"/>' for c in channels)  # fmt: skip
        images.append(
            f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" '
            f'Type="{first.dtype}" SizeX="{first.shape[1]}" SizeY="{first.shape[0]}" '
            f'SizeC="{len(channels)}" SizeZ="{len(planes)}" SizeT="{len(times)}">{listed}'
            f'<TiffData FirstC="0" FirstZ="0" FirstT="0" IFD="0" '
            f'PlaneCount="{len(channels) * len(planes) * len(times)}">{uuid}</TiffData>'
            "</Pixels></Image>"
        )
    placed = "".join(
        f'<Well ID="Well:{row}:{column}" Row="{row - 1}" Column="{column - 1}">'
        f"{''.join(samples)}</Well>"
        for (row, column), samples in wells.items()
    )
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        + (f'<Plate ID="Plate:0" Rows="8" Columns="12">{placed}</Plate>' if plate else "")
        + "".join(images)
        + "</OME>"
    )


def write_ome_tiff(folder: Path, pictures: Pictures, companion: bool = True) -> None:
    """Write one file a well and site, with a companion file, or with its own OME-XML alone."""
    places = sorted({key[:3] for key in pictures})
    files = {(r, c, s): f"{letters(r)}{c:02d}_{s}.ome.tiff" for r, c, s in places}
    if companion:
        (folder / "plate.companion.ome").write_text(ome_xml(pictures, files), encoding="utf-8")
    for place, name in files.items():
        stack = [pictures[(*place, c, z, t)] for t in numbers(pictures, 5)
                 for z in numbers(pictures, 4) for c in numbers(pictures, 3)]  # fmt: skip
        own = ome_xml(
            {k: v for k, v in pictures.items() if k[:3] == place}, {place: ""}, plate=False
        )
        elsewhere = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
            '<BinaryOnly MetadataFile="plate.companion.ome"/></OME>'
        )
        with tifffile.TiffWriter(folder / name) as file:
            for number, values in enumerate(stack):
                text = (elsewhere if companion else own) if number == 0 else None
                file.write(values, contiguous=False, compression="zlib", metadata=None,
                           description=text and text.encode())  # fmt: skip


def write_ome_zarr(
    folder: Path, pictures: Pictures, version: str = "0.4", shards: bool = False
) -> None:
    root = folder / "plate.zarr"
    format_ = 2 if version == "0.4" else 3
    channels, planes, times = (numbers(pictures, axis) for axis in (3, 4, 5))
    rows, columns = numbers(pictures, 0), numbers(pictures, 1)

    def group(path: Path, attributes: dict) -> None:
        path.mkdir(parents=True)
        if format_ == 2:
            (path / ".zgroup").write_text('{"zarr_format": 2}')
            for key in {"plate", "well"} & set(attributes):
                attributes[key]["version"] = version
            (path / ".zattrs").write_text(json.dumps(attributes))
        else:
            document = {"zarr_format": 3, "node_type": "group",
                        "attributes": {"ome": {"version": version, **attributes}}}  # fmt: skip
            (path / "zarr.json").write_text(json.dumps(document))

    places = sorted({key[:2] for key in pictures})
    group(root, {"plate": {
        "rows": [{"name": letters(r)} for r in rows],
        "columns": [{"name": str(c)} for c in columns],
        "wells": [{"path": f"{letters(r)}/{c}", "rowIndex": rows.index(r),
                   "columnIndex": columns.index(c)} for r, c in places],
    }})  # fmt: skip
    for r, c in places:
        well = root / letters(r) / str(c)
        sites = sorted({key[2] for key in pictures if key[:2] == (r, c)})
        group(well, {"well": {"images": [{"path": str(s - 1)} for s in sites]}})
        for s in sites:
            axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}] + [
                {"name": n, "type": "space"} for n in "zyx"
            ]
            scale = {"axes": axes, "datasets": [{"path": "0"}]}
            if format_ == 2:
                scale["version"] = version
            group(well / str(s - 1), {
                "multiscales": [scale],
                "omero": {"channels": [{"label": NAMES[channel]} for channel in channels]},
            })  # fmt: skip
            values = np.stack([np.stack([np.stack([pictures[r, c, s, ch, z, t] for z in planes])
                                         for ch in channels]) for t in times])  # fmt: skip
            options = {"chunks": (1, 1, 1, 128, 200)}
            if shards:
                options = {"chunks": (1, 1, 1, 128, 128), "shards": (1, 1, 1, 384, 384)}
            array = zarr.create_array(
                well / str(s - 1) / "0",
                shape=values.shape, dtype=values.dtype, zarr_format=format_,
                chunk_key_encoding={"name": "v2" if format_ == 2 else "default", "separator": "/"},
                **options,
            )  # fmt: skip
            array[:] = values


WRITERS = {
    "names": write_names,
    "imagexpress": write_imagexpress,
    "harmony": write_harmony,
    "cellvoyager": write_cellvoyager,
    "ome-tiff": write_ome_tiff,
    "ome-zarr": write_ome_zarr,
}


def layout(
    kind: str, rows: int = 2, columns: int = 4, size: tuple[int, int] = (256, 300), bits: int = 16,
    fields: int = 1, more: str = "", pattern: str = "",
) -> str:  # fmt: skip
    """Return a layout's text for a plate of that kind; `more` are further keys of [files]."""
    pattern = pattern or (PATTERN if kind == "names" else "")
    return f"""
format = 1
name = "simulated"
[files]
kind = "{kind}"
{f"pattern = '{pattern}'" if pattern else ""}
size = {list(size)}
bits = {bits}
fields = {fields}
{more}
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 8
columns = 12
[[wells]]
rows = "A-{letters(rows)}"
columns = "1-{columns}"
roles = {["negative", "positive"] * (columns // 2)}
[folds]
A = "A"
B = "B-H"
"""
