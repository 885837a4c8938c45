"""Opens what an example made, and checks it against the data set itself.

    python examples/check.py NAME OUTDIR [INPUT]

NAME is an example without its ending, or `all`; OUTDIR is the folder its
products are in (the --out of `belljar run`); INPUT is the file the example was
given with --file, where that is not in OUTDIR too. One line a check; exit 0
when all hold, 1 when one does not, 2 when NAME is no example.

It runs outside the sandbox, with the packages the examples use.
"""

import csv
import datetime
import io
import itertools
import re
import sys
import zipfile
from collections import Counter
from copy import copy
from pathlib import Path
from statistics import fmean

import numpy
from PIL import Image

EXAMPLES = {}
failures = 0


def example(function):
    EXAMPLES[function.__name__] = function
    return function


def short(value):
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + " …"


def check(label, holds, found=""):
    global failures
    failures += not holds
    print(f"{'ok  ' if holds else 'FAIL'} {label}" + ("" if holds or found == "" else f"; found {short(found)}"))


def equal(label, found, expected):
    check(label, found == expected, found)
    if found != expected:
        print(f"     expected {short(expected)}")


def close(label, found, expected, within=1e-9):
    found, expected = list(found), list(expected)
    numbers = all(isinstance(value, (int, float)) for value in found)
    check(f"{label} ({len(expected)} values)",
          numbers and len(found) == len(expected) and numpy.allclose(found, expected, rtol=0, atol=within), found[:6])


def pixels(file):
    return numpy.asarray(Image.open(file).convert("RGB")).astype(int)


def picture(label, file, size, *colours):
    """Its size; that it is drawn upon, to all four sides; that each colour is in it."""
    drawn = pixels(file)
    equal(f"{label}: width and height", (drawn.shape[1], drawn.shape[0]), size)
    ink = (drawn.min(axis=2) < 200)
    check(f"{label}: neither blank nor full", 0.005 < ink.mean() < 0.6 and drawn.std() > 10, round(float(ink.mean()), 4))
    rows, columns = numpy.flatnonzero(ink.any(axis=1)), numpy.flatnonzero(ink.any(axis=0))
    spread = len(rows) and min((rows[-1] - rows[0]) / drawn.shape[0], (columns[-1] - columns[0]) / drawn.shape[1])
    check(f"{label}: uses its area", spread > 0.8, round(float(spread), 2))
    for colour in colours:
        wanted = [int(colour[at:at + 2], 16) for at in (1, 3, 5)]
        count = int((numpy.abs(drawn - wanted).max(axis=2) < 12).sum())
        check(f"{label}: has {colour}", count > 500, count)


def statsmodels_data(name):
    import statsmodels.datasets

    return getattr(statsmodels.datasets, name).load_pandas().data


@example
def csv_chart(out, given):
    import statsmodels.datasets.grunfeld as grunfeld

    source = Path(grunfeld.__file__).with_name("grunfeld.csv").read_bytes()
    committed = Path(__file__).with_name("data") / "grunfeld.csv"
    check("data/grunfeld.csv is the file of statsmodels", committed.read_bytes().split() == source.split())

    firms = {}
    for row in csv.DictReader(io.StringIO(source.decode())):
        firms.setdefault(row["firm"], []).append(float(row["invest"]))
    expected = sorted(([firm, sum(v), fmean(v), max(v)] for firm, v in firms.items()), key=lambda row: -row[1])
    header, *rows = csv.reader(open(out / "firms.csv"))
    equal("firms.csv: header", header, ["firm", "total", "mean", "peak"])
    equal("firms.csv: firms, largest first", [row[0] for row in rows], [row[0] for row in expected])
    close("firms.csv: total, mean, peak", [float(v) for row in rows for v in row[1:]],
          [v for row in expected for v in row[1:]], within=0.0051)
    picture("investment.png", out / "investment.png", (1350, 750), "#1f4e79", "#d55e00", "#2a9d8f")


def macro_rows(until_year):
    """(first day of the quarter, GDP, consumption, unemployment, inflation) for each quarter."""
    data = statsmodels_data("macrodata")
    return [(datetime.datetime(int(row.year), int(row.quarter) * 3 - 2, 1), row.realgdp, row.realcons, row.unemp / 100, row.infl / 100)
            for row in data.itertuples() if row.year <= until_year]


def workbook_data(label, sheet, expected):
    rows = list(sheet.iter_rows(values_only=True))
    equal(f"{label}: header", rows[0], ("Quarter from", "Real GDP ($bn)", "Consumption ($bn)", "Unemployment", "Inflation"))
    equal(f"{label}: quarters", [row[0] for row in rows[1:]], [row[0] for row in expected])
    close(f"{label}: numbers", [v for row in rows[1:] for v in row[1:]], [v for row in expected for v in row[1:]])


def workbook_look(label, quarters, summary, last):
    """Everything of a workbook's look that both examples must end with."""
    head = [quarters["A1"], quarters["E1"], summary["A4"], summary["E4"]]
    equal(f"{label}: header cells are bold white on blue",
          {(c.font.b, c.font.color.rgb, c.fill.fill_type, c.fill.fgColor.rgb) for c in head},
          {(True, "FFFFFFFF", "solid", "FF1F4E79")})
    equal(f"{label}: title is bold, 16 points", (summary["A1"].font.b, summary["A1"].font.sz), (True, 16))
    for column, number in zip("ABCDE", ["mmm yyyy", "#,##0.0", "#,##0.0", "0.0%", "0.0%"]):
        formats = {cell.number_format for cell in quarters[column][1:]}
        equal(f"{label}: number format of column {column}", formats, {number})
    equal(f"{label}: number formats of the summary", [summary.cell(5, c).number_format for c in (2, 3, 4)], ["#,##0.0", "0.0%", "0.0%"])
    equal(f"{label}: column widths", [round(quarters.column_dimensions[name].width) for name in "AB"], [15, 21])
    equal(f"{label}: frozen panes", quarters.freeze_panes, "B2")
    equal(f"{label}: filter", quarters.auto_filter.ref, f"A1:E{last}")
    equal(f"{label}: header row repeats in print", quarters.print_title_rows, "$1:$1")
    check(f"{label}: gridlines of the summary hidden", summary.sheet_view.showGridLines is False)
    rules = {str(area.sqref): area.rules for area in quarters.conditional_formatting}
    equal(f"{label}: conditional formats lie on all rows", sorted(rules), [f"D2:D{last}", f"E2:E{last}"])
    if len(rules) == 2:
        scale, below = rules[f"D2:D{last}"][0], rules[f"E2:E{last}"][0]
        equal(f"{label}: colour scale", [scale.type] + [c.rgb for c in scale.colorScale.color], ["colorScale", "FFFFFFFF", "FFF4B183"])
        equal(f"{label}: negative inflation is red", (below.operator, below.formula, below.dxf.font.color.rgb, below.dxf.fill.bgColor.rgb),
              ("lessThan", ["0"], "FF9C0006", "FFFFC7CE"))
    for row, decade in enumerate(range(1960, 2010, 10), start=5):
        dates = f"Quarters!$A$2:$A${last}"
        when = f'{dates}, ">="&DATE($A{row}, 1, 1), {dates}, "<"&DATE($A{row} + 10, 1, 1)'
        expected = [decade] + [f"=AVERAGEIFS(Quarters!${c}$2:${c}${last}, {when})" for c in "BDE"] + [f"=COUNTIFS({when})"]
        equal(f"{label}: formulas of {decade}", [cell.value for cell in summary[row][:5]], expected)


def workbook_chart(label, file, last):
    from lxml import etree

    with zipfile.ZipFile(file) as package:
        names = [name for name in package.namelist() if name.startswith("xl/charts/chart")]
        equal(f"{label}: charts in the package", len(names), 1)
        chart = etree.fromstring(package.read(names[0]))
        drawing = etree.fromstring(package.read("xl/drawings/drawing1.xml"))
    name = {"c": "http://schemas.openxmlformats.org/drawingml/2006/chart", "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
            "d": "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing"}
    equal(f"{label}: chart's title", chart.xpath("string(c:chart/c:title//a:t)", namespaces=name), "Real GDP and consumption")
    equal(f"{label}: chart's series", chart.xpath("//c:lineChart/c:ser/*[self::c:cat or self::c:val]//c:f/text()", namespaces=name),
          [f"Quarters!${c}$2:${c}${last}" for c in "ABAC"])
    equal(f"{label}: chart's line colours", chart.xpath("//c:ser/c:spPr/a:ln/a:solidFill/a:srgbClr/@val", namespaces=name),
          ["1F4E79", "D55E00"])
    equal(f"{label}: chart has a date axis in years", chart.xpath("//c:dateAx/c:numFmt/@formatCode", namespaces=name), ["yyyy"])
    equal(f"{label}: chart stands at A12", drawing.xpath("//d:from/d:col/text() | //d:from/d:row/text()", namespaces=name), ["0", "11"])


@example
def excel_report(out, given):
    import openpyxl

    file, expected = out / "us_economy.xlsx", macro_rows(2007)
    book = openpyxl.load_workbook(file)
    equal("us_economy.xlsx: sheets", book.sheetnames, ["Summary", "Quarters"])
    last = len(expected) + 1
    workbook_data("us_economy.xlsx", book["Quarters"], expected)
    workbook_look("us_economy.xlsx", book["Quarters"], book["Summary"], last)
    workbook_chart("us_economy.xlsx", file, last)

    values = openpyxl.load_workbook(file, data_only=True)["Summary"]
    for row, decade in enumerate(range(1960, 2010, 10), start=5):
        inside = [r for r in expected if decade <= r[0].year < decade + 10]
        close(f"us_economy.xlsx: stored values of {decade}", [cell.value for cell in values[row][1:5]],
              [fmean(r[1] for r in inside), fmean(r[3] for r in inside), fmean(r[4] for r in inside), len(inside)])


@example
def excel_update(out, given):
    import openpyxl

    file, expected = out / "us_economy_updated.xlsx", macro_rows(2009)
    before, after = openpyxl.load_workbook(given or out / "us_economy.xlsx"), openpyxl.load_workbook(file)
    old_last, last = before["Quarters"].max_row, len(expected) + 1
    equal("us_economy_updated.xlsx: rows added", last - old_last, 7)
    equal("us_economy_updated.xlsx: sheets", after.sheetnames, before.sheetnames)
    workbook_data("us_economy_updated.xlsx", after["Quarters"], expected)
    workbook_look("us_economy_updated.xlsx", after["Quarters"], after["Summary"], last)
    workbook_chart("us_economy_updated.xlsx", file, last)
    equal("us_economy_updated.xlsx: changed note", after["Summary"]["A2"].value, "Data to July 2009. " + before["Summary"]["A2"].value)
    with zipfile.ZipFile(file) as package:
        check("us_economy_updated.xlsx: asks to be calculated on opening", b'fullCalcOnLoad="1"' in package.read("xl/workbook.xml"))

    def style(cell):
        # copies, since what openpyxl hands out are proxies which equal nothing
        return copy(cell.font), copy(cell.fill), copy(cell.border), copy(cell.alignment), cell.number_format

    def sizes(sheet):
        return ([(name, column.width) for name, column in sheet.column_dimensions.items()],
                [(number, row.height) for number, row in sheet.row_dimensions.items() if row.height])

    for name in before.sheetnames:
        old, new = before[name], after[name]
        cells = [cell for row in old.iter_rows() for cell in row]
        differ = [cell.coordinate for cell in cells if style(cell) != style(new[cell.coordinate])]
        equal(f"us_economy_updated.xlsx: {name}, style of its {len(cells)} old cells", differ, [])
        equal(f"us_economy_updated.xlsx: {name}, column widths and row heights as before", sizes(new), sizes(old))
    sheet = after["Quarters"]
    differ = [cell.coordinate for row in sheet.iter_rows(min_row=old_last + 1) for cell in row
              if style(cell) != style(sheet.cell(old_last, cell.column))]
    equal("us_economy_updated.xlsx: new rows are styled as the one above", differ, [])


@example
def pdf_report(out, given):
    import pypdf

    report = pypdf.PdfReader(out / "co2_report.pdf")
    texts = [page.extract_text() for page in report.pages]
    equal("co2_report.pdf: pages", len(texts), 3)
    equal("co2_report.pdf: title in its properties", report.metadata.title, "Carbon dioxide at Mauna Loa")
    for number, text in enumerate(texts, start=1):
        check(f"co2_report.pdf: page {number} has its number", f"Page {number}" in text.splitlines(), text[-80:])

    weeks = statsmodels_data("co2")["co2"].dropna()
    years = {}
    for day, value in weeks.items():
        years.setdefault(day.year, []).append(float(value))
    mean = {year: fmean(values) for year, values in years.items()}
    for part in ["Carbon dioxide at Mauna Loa", f"{len(weeks):,} weekly measurements", f"held {mean[1959]:.1f} parts",
                 f"{mean[2001] - mean[1959]:.1f} ppm", "The trend", "Figure 1."]:
        check(f"co2_report.pdf: page 1 says {part!r}", part in " ".join(texts[0].split()))
    expected = []
    for year, values in years.items():
        change = [f"{mean[year] - mean[year - 1]:+.2f}"] if year - 1 in mean else []
        expected.append([str(year), str(len(values)), f"{mean[year]:.2f}", f"{min(values):.1f}", f"{max(values):.1f}", *change])
    words = " ".join(texts).split()  # a PDF knows no cells: a row is its words, one after the other
    missing = [row for row in expected if not any(words[at:at + len(row)] == row for at in range(len(words)))]
    equal(f"co2_report.pdf: the table's {len(expected)} rows", missing, [])
    header = ["Year", "Weeks", "Mean", "Lowest", "Highest", "Change"]
    heads = [number for number, text in enumerate(texts, start=1) if " ".join(header) in " ".join(text.split())]
    equal("co2_report.pdf: pages with the table's header", heads, [2, 3])

    images = [(number, image) for number, page in enumerate(report.pages, start=1) for image in page.images]
    equal("co2_report.pdf: pictures on pages", [number for number, _ in images], [1, 2])
    for (number, image), size, colours in zip(images, [(1600, 1120), (1600, 640)], [["#1f4e79", "#9dbcd4"], ["#1f4e79", "#d55e00"]]):
        picture(f"co2_report.pdf: picture on page {number}", io.BytesIO(image.data), size, *colours)


@example
def pdf_form(out, given):
    import pypdf
    import pypdfium2
    from sklearn.datasets import load_wine

    data = load_wine()
    names = ["alcohol", "malic_acid", "magnesium", "total_phenols", "color_intensity", "hue", "proline"]
    number = int(data.data[:, data.feature_names.index("alcohol")].argmax())
    proline = data.data[:, data.feature_names.index("proline")]
    place = 1 + int((proline > proline[number]).sum())
    values = {"sample": str(number)} | {name: f"{data.data[number, data.feature_names.index(name)]:g}" for name in names}
    values["remarks"] = f"Highest alcohol of 178 samples.\nProline: place {place} of 178; the mean is {proline.mean():.0f}."
    values |= {f"class_{c}": "/Yes" if c == data.target[number] else "/Off" for c in range(3)}

    empty, filled = pypdf.PdfReader(out / "wine_form.pdf"), pypdf.PdfReader(out / "form_filled.pdf")
    equal("form_filled.pdf: pages", len(filled.pages), 1)
    equal("wine_form.pdf: fields, all empty", {name: field.value or "" for name, field in empty.get_fields().items()},
          {name: "/Off" if name.startswith("class_") else "" for name in values})
    equal("form_filled.pdf: values", {name: field.value for name, field in filled.get_fields().items()}, values)
    left_to_viewer = str(filled.trailer["/Root"]["/AcroForm"].get("/NeedAppearances", False))
    equal("form_filled.pdf: does not leave the drawing to the viewer", left_to_viewer, "False")

    # What a viewer shows: each field's own appearance, and the page drawn by another program.
    def drawn(file):
        document = pypdfium2.PdfDocument(file)
        document.init_forms()
        return numpy.asarray(document[0].render(scale=2).to_pil().convert("L")).astype(int)

    page_empty, page_filled = drawn(out / "wine_form.pdf"), drawn(out / "form_filled.pdf")
    height = float(filled.pages[0].mediabox.height)
    for widget in (reference.get_object() for reference in filled.pages[0]["/Annots"]):
        name = widget["/T"]
        appearance = widget["/AP"]["/N"]
        if name.startswith("class_"):
            equal(f"form_filled.pdf: {name} shows its state", widget["/AS"], values[name])
            check(f"form_filled.pdf: {name} has an appearance for it", values[name] in appearance, list(appearance))
        else:
            stream = appearance.get_data().decode("latin-1")
            check(f"form_filled.pdf: {name} has its value in its appearance",
                  all(f"({line})" in stream for line in values[name].split("\n")), stream)
        left, bottom, right, top = (float(v) for v in widget["/Rect"])
        area = slice(int((height - top + 2) * 2), int((height - bottom - 2) * 2)), slice(int((left + 2) * 2), int((right - 2) * 2))
        change = int((numpy.abs(page_filled[area] - page_empty[area]) > 60).sum())
        if values[name] == "/Off":
            equal(f"form_filled.pdf: {name} stays empty on the drawn page", change, 0)
        else:
            check(f"form_filled.pdf: {name} is seen on the drawn page", change > 20, change)


@example
def word_report(out, given):
    import calendar

    from docx import Document
    from docx.oxml.ns import qn

    data = statsmodels_data("elnino")
    months = {int(row[0]): [float(v) for v in row[1:]] for row in data.itertuples(index=False)}
    years = {year: fmean(values) for year, values in months.items()}
    mean = fmean(years.values())
    document = Document(out / "elnino.docx")
    paragraphs = [(p.style.name, p.text) for p in document.paragraphs]
    equal("elnino.docx: headings", [text for style, text in paragraphs if style in ("Title", "Heading 1")],
          ["El Niño years", "The warmest years", "Year against mean", "Decade by decade"])
    check("elnino.docx: opening paragraph has the mean", f"mean temperature of {mean:.1f} °C" in paragraphs[1][1], paragraphs[1][1])
    warmest = sorted(years, key=years.get, reverse=True)[:5]
    expected = [f"{y}: {years[y] - mean:+.2f} °C; its warmest month was {calendar.month_name[1 + months[y].index(max(months[y]))]}, "
                f"with {max(months[y]):.1f} °C" for y in warmest]
    equal("elnino.docx: numbered list", [text for style, text in paragraphs if style == "List Number"], expected)
    equal("elnino.docx: the list's years are bold",
          [p.runs[0].text for p in document.paragraphs if p.style.name == "List Number" and p.runs[0].bold], [str(y) for y in warmest])
    equal("elnino.docx: captions", [text[:8] for style, text in paragraphs if style == "Caption"], ["Figure 1", "Table 1."])

    equal("elnino.docx: tables", len(document.tables), 1)
    table = document.tables[0]
    rows = [["Decade", "March", "June", "September", "December", "Whole year"]]
    for decade in range(1950, 2010, 10):
        of = [months[year] for year in range(decade, decade + 10)]
        rows.append([f"{decade}s", *(f"{fmean(year[m] for year in of):.2f}" for m in (2, 5, 8, 11)), f"{fmean(map(fmean, of)):.2f}"])
    equal("elnino.docx: cells of the table", [[cell.text for cell in row.cells] for row in table.rows], rows)
    equal("elnino.docx: the table's style", table.style.name, "Light Grid Accent 1")
    font = document.styles["Title"].font
    equal("elnino.docx: title's font", (font.name, str(font.color.rgb)), ("Calibri", "1F4E79"))

    equal("elnino.docx: pictures in the text", len(document.inline_shapes), 1)
    shape = document.inline_shapes[0]
    equal("elnino.docx: the picture's width and height in mm", (round(shape.width.mm), round(shape.height.mm)), (160, 68))
    part = document.part.related_parts[shape._inline.graphic.graphicData.pic.blipFill.blip.embed]
    picture("elnino.docx: picture", io.BytesIO(part.blob), (1600, 680), "#1f4e79", "#d55e00")
    footer = document.sections[0].footer.paragraphs[0]
    equal("elnino.docx: footer", footer.text, "El Niño years, page ")
    equal("elnino.docx: page number field", [f.get(qn("w:instr")) for f in footer._p.iter(qn("w:fldSimple"))], ["PAGE"])


@example
def slides(out, given):
    from pptx import Presentation
    from pptx.enum.chart import XL_CHART_TYPE

    data = statsmodels_data("modechoice")
    modes = {"Train": 2, "Car": 4, "Air": 1, "Bus": 3}
    chosen = Counter(int(mode) for mode, choice in zip(data["mode"], data["choice"]) if choice == 1)
    share = [chosen[code] / 210 for code in modes.values()]
    rows = [["Way", "Share", "Cost, dollars", "Waiting, minutes", "Hours in all"]]
    for (mode, code), part in zip(modes.items(), share):
        of = [row for row in data.itertuples() if row.mode == code]
        hours = fmean((row.ttme + row.invt) / 60 for row in of)
        rows.append([mode, f"{part:.0%}", f"{fmean(row.invc for row in of):.0f}", f"{fmean(row.ttme for row in of):.0f}", f"{hours:.1f}"])

    deck = Presentation(out / "travel.pptx")
    pages = list(deck.slides)
    equal("travel.pptx: titles", [slide.shapes.title.text for slide in pages],
          ["Air, train, bus or car?", "The plane saves time, but costs money", "Train, car and air are almost level in the sample",
           "What each way takes, on average", "Those who fly, and those who drive, earn more"])
    equal("travel.pptx: 16 to 9", round(deck.slide_width / deck.slide_height, 3), 1.778)
    check("travel.pptx: cover says how many people", "210 people" in pages[0].placeholders[1].text, pages[0].placeholders[1].text)
    bullets = [p.text for p in pages[1].placeholders[1].text_frame.paragraphs]
    equal("travel.pptx: bullets", len(bullets), 4)
    train, car, air, bus = (f"{part:.0%}" for part in share)
    equal("travel.pptx: first bullet", bullets[0], f"{train} took the train, {car} the car, {air} the plane, {bus} the bus")

    charts = [shape.chart for slide in pages for shape in slide.shapes if shape.has_chart]
    equal("travel.pptx: native charts", [chart.chart_type for chart in charts], [XL_CHART_TYPE.COLUMN_CLUSTERED])
    equal("travel.pptx: chart's categories", list(charts[0].plots[0].categories), list(modes))
    close("travel.pptx: chart's values", charts[0].plots[0].series[0].values, share)
    tables = [shape.table for slide in pages for shape in slide.shapes if shape.has_table]
    equal("travel.pptx: cells of the table", [[[cell.text for cell in row.cells] for row in table.rows] for table in tables], [rows])
    equal("travel.pptx: header of the table is filled", str(tables[0].cell(0, 0).fill.fore_color.rgb), "1F4E79")
    images = [shape.image for slide in pages for shape in slide.shapes if shape.shape_type == 13]
    equal("travel.pptx: pictures", len(images), 1)
    picture("travel.pptx: picture", io.BytesIO(images[0].blob), (1800, 920), "#1f4e79", "#d55e00", "#2a9d8f", "#7f7f7f")

    for number, slide in enumerate(pages, start=1):
        boxes = [(s.left, s.top, s.left + s.width, s.top + s.height) for s in slide.shapes]
        inside = all(min(b) >= 0 and b[2] <= deck.slide_width and b[3] <= deck.slide_height for b in boxes)
        check(f"travel.pptx: slide {number}, all inside", inside, boxes)
        overlap = [(a, b) for a, b in itertools.combinations(boxes, 2)
                   if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
        equal(f"travel.pptx: slide {number}, nothing over another", overlap, [])


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) +train\.(\S+) C=(\S+) fold=(\d) (.*)")


@example
def training_log(out, given):
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    lines = (out / "training.log").read_text().splitlines()
    parsed = [LINE.fullmatch(line) for line in lines]
    equal("training.log: every line reads as one", [line for line, match in zip(lines, parsed) if not match], [])
    results = [m for m in parsed if m and m[5].startswith("accuracy=")]
    models = ("logistic", "svm", "logistic.scaled", "svm.scaled")
    equal("training.log: one result a model, C and fold", sorted((m[2], m[3], m[4]) for m in results),
          sorted((name, c, str(fold)) for name in models for c in ("0.01", "0.1", "1", "10", "100") for fold in range(1, 6)))
    warned = [m for m in parsed if m and m[1] == "WARNING"]
    check("training.log: has warnings, of convergence alone", warned and all("ConvergenceWarning" in m[5] for m in warned), len(warned))
    accuracy = {(m[2], m[3], m[4]): float(m[5].split()[0][9:]) for m in results}
    equal("training.log: ERROR where accuracy is below 0.9", sorted((m[2], m[3], m[4]) for m in results if m[1] == "ERROR"),
          sorted(key for key, value in accuracy.items() if value < 0.89995))

    x, y = load_breast_cancer(return_X_y=True)
    for fold, (train, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y), start=1):
        scaler = StandardScaler().fit(x[train])
        score = LogisticRegression(max_iter=100).fit(scaler.transform(x[train]), y[train]).score(scaler.transform(x[test]), y[test])
        close(f"training.log: scaled logistic regression, fold {fold}, trained again",
              [accuracy.get(("logistic.scaled", "1", str(fold)))], [score], within=0.00006)


@example
def log_search(out, given):
    lines = (given or out / "training.log").read_text().splitlines()
    words = [line.split() for line in lines]

    def counted(counter):
        """As `sort | uniq -c | sort -rn` prints it: highest first, equal ones in falling order of the text."""
        return [f"{count} {key}" for key, count in sorted(counter.items(), key=lambda item: (item[1], item[0]), reverse=True)]

    def product(name):
        return [line.strip() for line in (out / name).read_text().splitlines()]

    levels = Counter(word[2] for word in words)
    check("the log has lines of each level", set(levels) == {"INFO", "WARNING", "ERROR"}, levels)
    equal("levels.txt", product("levels.txt"), counted(levels))
    equal("warnings.txt", product("warnings.txt"), counted(Counter(word[3] for word in words if word[2] == "WARNING")))
    results = [(float(word[6].split("=")[1]), " ".join(word[3:7])) for word in words if word[6].startswith("accuracy=")]
    equal("worst.txt", product("worst.txt"), [text for _, text in sorted(results, key=lambda r: (r[0], r[1].split("=")[0], r[1]))[:5]])
    models = {}
    for accuracy, text in results:
        models.setdefault(text.split()[0], []).append(accuracy)
    expected = {name: (fmean(values), len(values)) for name, values in models.items()}
    found = [re.fullmatch(r"([\d.]+) (\S+) \((\d+) fits\)", line) for line in product("models.txt")]
    check("models.txt: every line reads as one", all(found) and len(found) == len(expected), product("models.txt"))
    found = [m for m in found if m]
    equal("models.txt: models and fits", {m[2]: int(m[3]) for m in found}, {name: count for name, (_, count) in expected.items()})
    close("models.txt: means", [float(m[1]) for m in found], [expected[m[2]][0] for m in found if m[2] in expected], within=0.000051)
    equal("models.txt: best first", [float(m[1]) for m in found], sorted((float(m[1]) for m in found), reverse=True))


def main(arguments):
    if len(arguments) not in (2, 3) or arguments[0] not in [*EXAMPLES, "all"]:
        print(f"usage: check.py NAME OUTDIR [INPUT]\nNAME is one of: {', '.join(EXAMPLES)}, all", file=sys.stderr)
        return 2
    names = list(EXAMPLES) if arguments[0] == "all" else [arguments[0]]
    for name in names:
        try:
            EXAMPLES[name](Path(arguments[1]), Path(arguments[2]) if len(arguments) == 3 else None)
        except Exception as error:  # a product which is missing or does not open
            check(f"{name}: its products open ({type(error).__name__}: {error})", False)
    print(f"{failures} failed" if failures else "all hold")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
