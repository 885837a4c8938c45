"""A Word document: headings, list, picture, table, page numbers.

    belljar run examples/word_report.py

The data: the temperature of the sea off Peru, month by month from 1950 to
2010 (statsmodels' `elnino`, from NOAA).
"""

import calendar
import io

import matplotlib.pyplot as plt
import statsmodels.datasets as public_data
from docx import Document
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor

months = public_data.elnino.load_pandas().data.set_index("YEAR")
months.index = months.index.astype(int)
months.columns = calendar.month_name[1:]
years = months.mean(axis=1)
warmest = (years - years.mean()).nlargest(5)
decades = months.loc[1950:2009].groupby(lambda year: year // 10 * 10)
table = decades.mean()[["March", "June", "September", "December"]].assign(year=years.groupby(lambda year: year // 10 * 10).mean())

# --- the picture ---
difference = years - years.mean()
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.bar(difference.index, difference, color=["#d55e00" if value > 0 else "#1f4e79" for value in difference])
ax.axhline(0, color="black", linewidth=0.8)
ax.set_ylabel("°C above or below the mean")
ax.spines[["top", "right"]].set_visible(False)
picture = io.BytesIO()
figure.savefig(picture, format="png", dpi=200)
plt.close(figure)  # else the run shows it as an output of its own, too
picture.seek(0)

# --- the document: first its styles, then its text ---
document = Document()
document.core_properties.title = "El Niño years"
document.core_properties.author = "Belljar example"
section = document.sections[0]
section.page_width, section.page_height = Cm(21), Cm(29.7)
section.left_margin = section.right_margin = Cm(2.5)
document.styles["Normal"].font.name = "Calibri"
document.styles["Normal"].font.size = Pt(11)
for style in ("Title", "Heading 1"):
    font = document.styles[style].font
    font.name, font.color.rgb = "Calibri", RGBColor(0x1F, 0x4E, 0x79)
    fonts = document.styles[style].element.rPr.rFonts  # a heading's theme font would win over the name
    for attribute in [name for name in fonts.attrib if "heme" in name]:
        del fonts.attrib[attribute]

document.add_heading("El Niño years", level=0)
document.add_paragraph(
    f"Off the coast of Peru the sea has a mean temperature of {years.mean():.1f} °C. In some years warm water comes in "
    f"from the west and stays for months. The fishermen called it El Niño. In the {len(years)} years of this record "
    f"it was warmest in {years.idxmax()}, {difference.max():.1f} °C above the mean."
)
document.add_heading("The warmest years", level=1)
for year, value in warmest.items():
    paragraph = document.add_paragraph(style="List Number")
    paragraph.add_run(str(year)).bold = True
    paragraph.add_run(f": {value:+.2f} °C; its warmest month was {months.loc[year].idxmax()}, "
                      f"with {months.loc[year].max():.1f} °C")

document.add_heading("Year against mean", level=1)
document.add_picture(picture, width=Cm(16))
document.add_paragraph("Figure 1. Mean temperature of each year, less the mean of all years.", style="Caption")

document.add_heading("Decade by decade", level=1)
grid = document.add_table(rows=1, cols=6, style="Light Grid Accent 1")
for cell, text in zip(grid.rows[0].cells, ["Decade", "March", "June", "September", "December", "Whole year"]):
    cell.text = text
for decade, row in table.iterrows():
    cells = grid.add_row().cells
    cells[0].text = f"{decade}s"
    for cell, value in zip(cells[1:], row):
        cell.text = f"{value:.2f}"
for row in grid.rows:
    for cell in row.cells[1:]:
        cell.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.RIGHT
caption = document.add_paragraph("Table 1. Mean temperature in °C.", style="Caption")
caption.paragraph_format.space_before = Pt(6)
document.add_paragraph("Source: NOAA, ERSST.V3B, region Niño 1+2; public domain, by way of statsmodels.")

# --- the footer: python-docx has no page numbers, so the field is put in as XML ---
footer = section.footer.paragraphs[0]
footer.alignment = WD_ALIGN_PARAGRAPH.CENTER
footer.add_run("El Niño years, page ")
number = OxmlElement("w:fldSimple")
number.set(qn("w:instr"), "PAGE")
footer._p.append(number)

document.save("elnino.docx")

warmest.round(2).to_dict()
