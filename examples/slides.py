"""PowerPoint slides: title, bullets, native chart, table, picture.

    belljar run examples/slides.py

The data: how 210 people travelled between Sydney, Canberra and Melbourne in
1987, and what each way would have taken (statsmodels' `modechoice`).
"""

import io

import matplotlib.pyplot as plt
import statsmodels.datasets as public_data
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.dml.color import RGBColor
from pptx.enum.chart import XL_CHART_TYPE, XL_LABEL_POSITION
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.util import Inches, Pt

ways = public_data.modechoice.load_pandas().data  # a row for each person and each way to travel
ways["mode"] = ways["mode"].map({1: "Air", 2: "Train", 3: "Bus", 4: "Car"})
ways["hours"] = (ways["invt"] + ways["ttme"]) / 60
chosen = ways[ways["choice"] == 1]
modes = ["Train", "Car", "Air", "Bus"]
share = chosen["mode"].value_counts(normalize=True)[modes]
means = ways.groupby("mode")[["invc", "ttme", "hours"]].mean().loc[modes]
income = chosen.groupby("mode")["hinc"].median()[modes]

# --- the picture ---
figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
colours = {"Air": "#1f4e79", "Train": "#d55e00", "Bus": "#7f7f7f", "Car": "#2a9d8f"}
boxes = ax.boxplot([chosen.loc[chosen["mode"] == mode, "hinc"] for mode in modes], widths=0.5, patch_artist=True,
                   medianprops={"color": "white", "linewidth": 2.5})
for box, mode in zip(boxes["boxes"], modes):
    box.set(facecolor=colours[mode], edgecolor=colours[mode])
ax.set_xticks(range(1, 5), modes)
ax.set_ylabel("Household income,\nthousands of dollars a year", fontsize=13)
ax.grid(axis="y", color="#e5e5e5")
ax.set_axisbelow(True)
ax.tick_params(labelsize=13, length=0)
ax.spines[["top", "right", "left"]].set_visible(False)
picture = io.BytesIO()
figure.savefig(picture, format="png", dpi=200)
plt.close(figure)  # else the run shows it as an output of its own, too
picture.seek(0)

# --- the slides, 16:9 ---
deck = Presentation()
deck.slide_width, deck.slide_height = Inches(13.333), Inches(7.5)
blue, grey, white = RGBColor(0x1F, 0x4E, 0x79), RGBColor(0x59, 0x59, 0x59), RGBColor(0xFF, 0xFF, 0xFF)
TITLE, BULLETS, TITLE_ONLY = 0, 1, 5  # layouts of the template which python-pptx carries


def place(shape, left, top, width, height):
    """The template is 4:3, so what stands on a slide is placed anew."""
    shape.left, shape.top, shape.width, shape.height = (Inches(value) for value in (left, top, width, height))


def write(frame, text, size, colour, bold=False):
    frame.text = text
    for paragraph in frame.paragraphs:
        paragraph.alignment = PP_ALIGN.LEFT
        paragraph.font.size, paragraph.font.bold, paragraph.font.color.rgb = Pt(size), bold, colour


def add_slide(layout, heading):
    slide = deck.slides.add_slide(deck.slide_layouts[layout])
    write(slide.shapes.title.text_frame, heading, 32, blue, bold=True)
    place(slide.shapes.title, 0.8, 0.5, 11.7, 1.0)
    return slide


cover = add_slide(TITLE, "Air, train, bus or car?")
cover.background.fill.solid()
cover.background.fill.fore_color.rgb = blue
write(cover.shapes.title.text_frame, "Air, train, bus or car?", 48, white, bold=True)
place(cover.shapes.title, 0.8, 2.4, 11.7, 1.3)
write(cover.placeholders[1].text_frame, f"How {len(chosen)} people travelled between Sydney, Canberra and Melbourne, 1987", 22, white)
place(cover.placeholders[1], 0.8, 3.7, 11.7, 1.0)

slide = add_slide(BULLETS, "The plane saves time, but costs money")
write(slide.placeholders[1].text_frame, "\n".join([
    f"{share['Train']:.0%} took the train, {share['Car']:.0%} the car, {share['Air']:.0%} the plane, {share['Bus']:.0%} the bus",
    f"By air, door to door, it was {means.loc['Air', 'hours']:.1f} hours; by train {means.loc['Train', 'hours']:.1f}",
    f"The plane cost {means.loc['Air', 'invc']:.0f} dollars, the car {means.loc['Car', 'invc']:.0f}",
    "The sample holds more train, bus and air travellers than there were: read shares with care",
]), 26, grey)
place(slide.placeholders[1], 0.8, 1.8, 11.7, 4.5)
for paragraph in slide.placeholders[1].text_frame.paragraphs:
    paragraph.space_after = Pt(14)

slide = add_slide(TITLE_ONLY, "Train, car and air are almost level in the sample")
data = CategoryChartData(number_format="0%")
data.categories = modes
data.add_series("Share of travellers", share)
chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(0.8), Inches(1.7), Inches(11.7), Inches(5.2), data).chart
chart.has_legend = chart.has_title = chart.value_axis.visible = chart.value_axis.has_major_gridlines = False
chart.category_axis.tick_labels.font.size = Pt(18)
plot = chart.plots[0]
plot.gap_width, plot.has_data_labels = 60, True
plot.data_labels.font.size, plot.data_labels.position = Pt(18), XL_LABEL_POSITION.OUTSIDE_END
plot.series[0].format.fill.solid()
plot.series[0].format.fill.fore_color.rgb = blue

slide = add_slide(TITLE_ONLY, "What each way takes, on average")
rows = [["Way", "Share", "Cost, dollars", "Waiting, minutes", "Hours in all"]]
rows += [[mode, f"{share[mode]:.0%}", f"{row.invc:.0f}", f"{row.ttme:.0f}", f"{row.hours:.1f}"] for mode, row in means.iterrows()]
table = slide.shapes.add_table(len(rows), 5, Inches(0.8), Inches(1.9), Inches(11.7), Inches(3.5)).table
for row, texts in enumerate(rows):
    for column, text in enumerate(texts):
        cell = table.cell(row, column)
        write(cell.text_frame, text, 20, white if row == 0 else grey, bold=row == 0 or column == 0)
        cell.vertical_anchor = MSO_ANCHOR.MIDDLE
        if column:
            cell.text_frame.paragraphs[0].alignment = PP_ALIGN.RIGHT
        if row == 0:
            cell.fill.solid()
            cell.fill.fore_color.rgb = blue

slide = add_slide(TITLE_ONLY, "Those who fly, and those who drive, earn more")
slide.shapes.add_picture(picture, Inches(1.5), Inches(1.6), width=Inches(10.3))
deck.save("travel.pptx")

f"{len(deck.slides)} slides; median income of those who fly: {income['Air']:g} thousand, by train: {income['Train']:g} thousand"
