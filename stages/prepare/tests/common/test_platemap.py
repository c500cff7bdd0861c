"""Claims about plate maps: what a table says of each well, and what is refused with its line."""

import csv
import io
import zipfile
from xml.sax.saxutils import escape

import pytest
from common import layout
from common.errors import StageError
from common.platemap import MapKeys, read_map
from common.units import UNITS, unit_name
from common.wells import parse_well, row_name, row_number, well_name
from hypothesis import given, settings
from hypothesis import strategies as st

MAP = "well,compound,dose,unit,role\nA01,DMSO,0,uM,negative\nb2,Wortmannin,0.5,µM,positive\n"


def entries(folder, data, file="map.csv", **keys):
    (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)
    return read_map(folder, MapKeys(file=file, **keys))[0]


def refusal(folder, data, file="map.csv", **keys) -> str:
    with pytest.raises(StageError) as error:
        entries(folder, data, file, **keys)
    assert str(folder) not in str(error.value)
    return str(error.value)


def workbook(rows, *, date_style=False, sheets=("Map",)) -> bytes:
    """Return an .xlsx file (ECMA-376): text inline, numbers as they are, None left out."""

    def cell(value):
        if value is None:
            return "<c/>"
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        style = ' s="1"' if date_style and isinstance(value, int) else ""
        return f"<c{style}><v>{value}</v></c>"

    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    of = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    files = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r" Type="{of}/'
        'officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{space}" xmlns:r="{of}"><sheets>'
        + "".join(f'<sheet name="{s}" sheetId="{n}" r:id="r{n}"/>' for n, s in enumerate(sheets))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{of}/worksheet" Target="worksheets/s{n}.xml"/>'
            for n in range(len(sheets))
        )
        + f'<Relationship Id="st" Type="{of}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{space}"><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="14"/></cellXfs></styleSheet>',
    }
    for number in range(len(sheets)):
        files[f"xl/worksheets/s{number}.xml"] = (
            f'<worksheet xmlns="{space}"><sheetData>{sheet}</sheetData></worksheet>'
        )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


ROWS = [["well", "compound", "dose", "unit", "role"], [None], ["A1", "DMSO", 0, "uM", "negative"],
        ["B02", "Wortmannin", 0.5, "µM", "positive"]]  # fmt: skip


def test_a_map_says_each_wells_compound_dose_unit_and_role(tmp_path):
    first, second = entries(tmp_path, MAP)
    assert (first.row, first.column, first.compound, first.dose) == (1, 1, "DMSO", 0)
    assert (second.row, second.column, second.dose, second.unit) == (2, 2, 0.5, "µM")
    assert (first.role, second.role) == ("negative", "positive")


@pytest.mark.parametrize(
    "data",
    [
        MAP.encode("utf-8-sig"),
        MAP.replace("\n", "\r\n").encode(),
        MAP.encode("utf-16"),
        MAP.replace(",", "\t").encode(),
        MAP.replace(",", ";").encode(),
        MAP.replace(",", ";").replace("0.5", "0,5").encode("utf-8-sig"),
        MAP.replace("\nA01", "\n,,,,\n\n \nA01").encode(),
        MAP.replace("µ", "μ").encode(),  # the Greek letter
        MAP.replace("Wortmannin", '"Wortmannin"').encode(),
        MAP.upper().replace("µM", "µM").replace("UM", "uM").replace("ΜM", "µM").encode(),
    ],
)
def test_spellings_of_one_map_are_the_same_map(tmp_path, data):
    found = [(e.row, e.column, e.dose, e.unit, e.role) for e in entries(tmp_path, data)]
    assert found == [(1, 1, 0, "µM", "negative"), (2, 2, 0.5, "µM", "positive")]


def test_a_workbook_is_the_same_map_as_a_text_file(tmp_path):
    assert entries(tmp_path, workbook(ROWS), "map.xlsx") == entries(tmp_path, MAP)


def test_a_date_that_excel_made_is_refused_with_its_cell(tmp_path):
    rows = [ROWS[0], ["A1", "x", 46000, "uM", "negative"]]
    message = refusal(tmp_path, workbook(rows, date_style=True), "map.xlsx")
    assert "map.xlsx, Map, line 2, column 3 holds the date 2025-12-09" in message


def test_a_workbook_of_several_sheets_asks_for_one(tmp_path):
    data = workbook(ROWS, sheets=("First", "Second"))
    assert "2 sheets with values (First, Second); say which" in refusal(tmp_path, data, "m.xlsx")
    assert len(entries(tmp_path, data, "m.xlsx", sheet="Second")) == 2
    assert "no sheet 'Third'" in refusal(tmp_path, data, "m.xlsx", sheet="Third")


def test_a_workbook_that_unpacks_to_too_much_or_is_none_is_refused(tmp_path):
    stream = io.BytesIO(workbook(ROWS))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b" " * (300 << 20))
    assert "unpacks to too much" in refusal(tmp_path, stream.getvalue(), "bomb.xlsx")
    for data in (b"", b"PK\3\4 not a book", b"text"):
        assert "is no whole workbook" in refusal(tmp_path, data, "map.xlsx")


HEAD = "well,compound,dose,unit,role\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MAP + "A1,x,1,uM,sample\n", "has well A01 in line 2 and in line 4"),
        (HEAD + "A1,x,1,barn,sample\n", "line 2: the unit 'barn' is not known; write one of M, mM"),
        (HEAD + "A1,x,1,MM,sample\n", "the unit 'MM' is not known"),
        (HEAD + "A1,x,1,,sample\n", "line 2: the dose 1 has no unit"),
        (HEAD + "A1,x,10 nM,nM,sample\n", "the dose '10 nM' is not a number"),
        (HEAD + 'A1,x,"0,5",nM,sample\n', "the dose '0,5' is not a number"),
        (HEAD + "A1,x,-1,nM,sample\n", "the dose '-1' is not a number of 0 or more"),
        (HEAD + "A1,x,nan,nM,sample\n", "the dose 'nan' is not a number"),
        (HEAD + "A1,x,1e999,nM,sample\n", "the dose '1e999' is not a number"),
        (HEAD.replace(",", ";") + "A1;x;1,000;nM;sample\n", "can be read in two ways"),
        (HEAD + "A1,x,1,nM,control\n", "the role 'control' is not known"),
        (HEAD + "A0,x,1,nM,sample\n", "'A0' is no well"),
        (HEAD + "A100,x,1,nM,sample\n", "'A100' is no well"),
        (HEAD + "ZZ1,x,1,nM,sample\n", "'ZZ1' is no well"),
        (HEAD + ",x,1,nM,sample\n", "'' is no well"),
        (HEAD + "A1,x,1,nM,sample,more\n", "line 2 has more values than there are columns"),
        (HEAD + 'A1,"x,1,nM,sample\n', "is no whole table"),
        (HEAD + "A1,x,1,nM,sample\nA2,x,1,uM,sample\n", "gives doses of 'x' in nM and in µM"),
        (HEAD, "has no line with a well"),
        ("", "the plate map map.csv is empty"),
        ("well,role,well\nA1,sample,A1\n", "has the column 'well' twice"),
        ("well,,role\nA1,x,sample\n", "has a column without a heading"),
        ("place,role\nA1,sample\n", "has no column for the well among place, role"),
        ("well,compound\nA1,x\n", "no column says the role"),
        ("well;compound,role\nA1;x,sample\n", "has ',' and ';'; separate its columns by one sign"),
        ("well,dose,dose_uM,role\nA1,1,1,sample\n", "several columns for the dose: dose, dose_uM"),
        ("well,compound,dose,unit,role\nA1,µ,1,uM,sample\n".encode("latin-1"), "is not UTF-8 text"),
        (b"well,role\nA1,sample\0\xff", "is not UTF-8 text"),
    ],
)
def test_what_is_unclear_in_a_map_is_refused_with_its_line(tmp_path, data, message):
    assert message in refusal(tmp_path, data)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    data = HEAD + '\nA1,"two\nlines",1,nM,sample\n\nA2,x,1,barn,sample\n'
    assert "line 6: the unit 'barn'" in refusal(tmp_path, data)


@pytest.mark.parametrize("file", ["../map.csv", "/etc/passwd", "map.pdf", "none.csv", "map.csv.gz"])
def test_a_map_that_is_elsewhere_or_of_another_kind_is_refused(tmp_path, file):
    with pytest.raises(StageError, match="the plate map"):
        read_map(tmp_path, MapKeys(file=file))


@pytest.mark.parametrize(
    ("heading", "unit"),
    [("dose_uM", "µM"), ("Concentration (nM)", "nM"), ("conc [ng/mL]", "ng/ml"),
     ("mmoles_per_liter", "mM"), ("Metadata_mmoles_per_liter", "mM"), ("mg_per_ml", "mg/ml")],
)  # fmt: skip
def test_a_heading_may_say_the_unit(tmp_path, heading, unit):
    (found,) = entries(tmp_path, f"Well,{heading},Role\nA1,2,sample\n")
    assert (found.dose, found.unit) == (2, unit)


JUMP = "well_position\tbroad_sample\tmmoles_per_liter\nA01\tBRD-K1\t5\nA02\t\t\nA03\tBRD-K2\t5\n"
COMPOUNDS = (
    "broad_sample\tpert_iname\tpert_type\tcontrol_type\n"
    "BRD-K1\tone\ttrt\t\nBRD-K2\ttwo\tcontrol\tposcon_cp\n\tDMSO\tcontrol\tnegcon\n"
)
CHOICE = {"compound": "pert_iname", "role": "control_type"}
ROLES = {"": "sample", "poscon_cp": "positive"}


def test_tables_of_jump_are_joined_by_what_they_share(tmp_path):
    (tmp_path / "compounds.tsv").write_text(COMPOUNDS)
    keys = {"compounds": "compounds.tsv", "columns": CHOICE, "roles": ROLES}
    found = entries(tmp_path, JUMP, "platemap.txt", **keys)
    assert [(e.compound, e.role, e.dose) for e in found] == [
        ("one", "sample", 5), ("DMSO", "negative", None), ("two", "positive", 5),
    ]  # fmt: skip
    message = refusal(tmp_path, JUMP, "platemap.txt", compounds="compounds.tsv")
    assert "several columns for the compound: broad_sample, pert_iname; name one" in message
    (tmp_path / "compounds.tsv").write_text(COMPOUNDS.replace("BRD-K2", "BRD-K3"))
    message = refusal(tmp_path, JUMP, "platemap.txt", **keys)
    assert "platemap.txt, line 4: broad_sample 'BRD-K2' is not in compounds.tsv" in message


def test_a_table_of_many_plates_asks_for_one(tmp_path):
    data = "Metadata_Plate,Metadata_Well,Metadata_JCP2022,role\nP1,A01,a,sample\nP2,A01,b,sample\n"
    assert "is about 2 plates (P1, P2); say which with map.plate" in refusal(tmp_path, data)
    assert [e.compound for e in entries(tmp_path, data, plate="P2")] == ["b"]
    assert "say which" in refusal(tmp_path, data, plate="P3")


def test_a_role_may_be_read_from_any_column(tmp_path):
    data = "well,compound,dose,unit\nA1,DMSO,0,uM\nA2,x,1,uM\nA3,y,1,uM\n"
    roles = {"dmso": "negative", "x": "positive", "*": "sample"}
    found = entries(tmp_path, data, columns={"role": "compound"}, roles=roles)
    assert [entry.role for entry in found] == ["negative", "positive", "sample"]


LAYOUT = """
format = 1
name = "mapped"
[files]
kind = "harmony"
size = [256, 256]
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 8
columns = 12
[map]
file = "map.csv"
[folds]
upper = "A"
lower = "B-H"
"""


def test_a_layout_takes_its_wells_from_a_map_and_its_digest_follows_the_map(tmp_path):
    (tmp_path / "map.csv").write_text(MAP)
    known = layout.parse(LAYOUT, "x", tmp_path)
    assert {w.name: (w.label, w.fold) for w in known.wells.values()} == {
        "A01": (0, "upper"), "B02": (1, "lower"),
    }  # fmt: skip
    (tmp_path / "map.csv").write_text(MAP.replace("0.5", "5"))
    assert layout.parse(LAYOUT, "x", tmp_path).digest != known.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('file = "map.csv"', 'file = "map.csv"\nsheets = "x"'), "there is no key map.sheets"),
        (('file = "map.csv"', "file = 3"), "holds something else than text"),
        (('file = "map.csv"', 'file = "map.csv"\ncolumns = { who = "x" }'), "no map.columns.who"),
        (("[folds]", "[[wells]]\nrows = 'A'\n[folds]"), "take one out"),
        (("rows = 8", "rows = 1"), "rows"),
        (("columns = 12", "columns = 1"), "the plate map has well B02, the plate 8 x 1 wells"),
        (("[map]", "[maps]"), "there is no key maps"),
        (('"B-H"', '"C-H"'), "well B02 is in no fold"),
    ],
)
def test_a_layout_whose_map_does_not_fit_is_refused(tmp_path, change, message):
    (tmp_path / "map.csv").write_text(MAP)
    with pytest.raises(StageError, match="x: ") as error:
        layout.parse(LAYOUT.replace(*change), "x", tmp_path)
    assert message in str(error.value)


@given(st.integers(1, 52), st.integers(1, 99))
def test_every_well_is_found_by_its_own_name_however_written(row, column):
    name = well_name(row_name(row), column)
    for text in (name, name.lower(), f" {row_name(row)}{column} "):
        assert parse_well(text) == (row, column)
    assert row_number(row_name(row)) == row_number(str(row)) == row


@pytest.mark.parametrize(
    "text", ["", "1", "A", "A0", "AAA1", "A1B", "A-1", "A1.0", "Ä1", "A¹", "BA1"]
)
def test_other_texts_are_no_wells(text):
    assert parse_well(text) is None


@given(st.text(max_size=6))
def test_a_unit_is_known_in_one_spelling_or_not_at_all(text):
    found = unit_name(text)
    assert found in {None, "", *UNITS}
    if found:
        assert unit_name(found) == found


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=6), st.sampled_from(",;\t"))
def test_compounds_of_any_text_come_through_any_table(tmp_path_factory, compounds, sign):
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=sign)
    writer.writerow(["well", "compound", "role"])
    for number, compound in enumerate(compounds, start=1):
        writer.writerow([f"A{number}", compound, "sample"])
    folder = tmp_path_factory.mktemp("map")
    found = entries(folder, stream.getvalue().encode())
    from unicodedata import normalize

    assert [e.compound for e in found] == [normalize("NFC", c).strip() for c in compounds]
