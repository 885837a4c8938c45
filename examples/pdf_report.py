"""A PDF report: title, text, two charts as pictures, a table over two pages.

    belljar run examples/pdf_report.py

The data: carbon dioxide in the air at Mauna Loa, Hawaii, week by week from
1958 to 2001 (Keeling's curve; statsmodels' `co2`).
"""

import io

import matplotlib.pyplot as plt
import statsmodels.datasets as public_data
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import cm
from reportlab.platypus import Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

weeks = public_data.co2.load_pandas().data["co2"]  # some weeks have no measurement
trend = weeks.interpolate().rolling(53, center=True).mean()
season = (weeks - trend).groupby(weeks.index.month).mean()
years = weeks.groupby(weeks.index.year).agg(["count", "mean", "min", "max"])
years["change"] = years["mean"].diff()

# --- the charts, drawn into memory as PNG ---
blue, orange, grey = "#1f4e79", "#d55e00", "#595959"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False,
                     "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e5e5e5"})


def picture(figure, width):
    """The figure as a picture of that width, its proportions kept."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)
    plt.close(figure)  # else the run shows it as an output of its own, too
    file.seek(0)
    across, up = figure.get_size_inches()
    return Image(file, width=width, height=width * up / across)


trend_chart, ax = plt.subplots(figsize=(8, 5.6), layout="constrained")
ax.plot(weeks.index, weeks, color="#9dbcd4", linewidth=0.8, label="each week")
ax.plot(weeks.index, trend, color=blue, linewidth=2, label="mean of the 53 weeks around it")
ax.set_ylabel("CO₂, parts per million")
ax.legend(frameon=False, loc="upper left")

season_chart, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
ax.bar(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], season,
       color=[orange if value > 0 else blue for value in season])
ax.axhline(0, color="black", linewidth=0.8)
ax.grid(axis="x", visible=False)
ax.set_ylabel("Difference from trend, ppm")

# --- the report: blocks, which flow over the pages ---
styles = getSampleStyleSheet()
title = ParagraphStyle("title", parent=styles["Title"], alignment=0, fontSize=24, leading=30, textColor=blue)
heading = ParagraphStyle("heading", parent=styles["Heading2"], fontSize=15, leading=20, spaceBefore=14, textColor=blue)
body = ParagraphStyle("body", parent=styles["BodyText"], fontSize=10.5, leading=15.5, spaceAfter=8)
caption = ParagraphStyle("caption", parent=body, fontSize=9, leading=12, textColor=grey)

start, end = years.loc[1959], years.loc[2001]  # 1958 began in March
fastest = years["change"].idxmax()
rows = [["Year", "Weeks", "Mean", "Lowest", "Highest", "Change"]]
for year, row in years.iterrows():
    change = "" if year == 1958 else f"{row['change']:+.2f}"
    rows.append([year, f"{row['count']:.0f}", f"{row['mean']:.2f}", f"{row['min']:.1f}", f"{row['max']:.1f}", change])
table = Table(rows, colWidths=[17 * cm / 6] * 6, repeatRows=1)  # the header again on every page
table.setStyle(TableStyle([
    ("BACKGROUND", (0, 0), (-1, 0), blue),
    ("TEXTCOLOR", (0, 0), (-1, 0), colors.white),
    ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
    ("FONTSIZE", (0, 0), (-1, -1), 9.5),
    ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
    ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, colors.HexColor("#f2f6fa")]),
    ("LINEBELOW", (0, -1), (-1, -1), 0.8, blue),
]))

story = [
    Paragraph("Carbon dioxide at Mauna Loa", title),
    Paragraph(f"{weeks.count():,} weekly measurements, {weeks.index[0]:%B %Y} to {weeks.index[-1]:%B %Y}", caption),
    Spacer(1, 0.4 * cm),
    Paragraph(
        f"In 1959 the air over Mauna Loa held {start['mean']:.1f} parts of carbon dioxide in a million; in 2001 it held "
        f"{end['mean']:.1f}. That is a rise of <b>{end['mean'] - start['mean']:.1f} ppm</b>, or "
        f"{end['mean'] / start['mean'] - 1:.0%}, in 42 years. The fastest year was {fastest}, with "
        f"{years['change'].max():.2f} ppm more than the year before.", body),
    Paragraph(
        f"The rise itself became faster: it was {years.loc[1960:1979, 'change'].mean():.2f} ppm a year in the 1960s and "
        f"1970s, and {years.loc[1980:1999, 'change'].mean():.2f} ppm a year in the 1980s and 1990s.", body),
    KeepTogether([
        Paragraph("The trend", heading),
        picture(trend_chart, 17 * cm),
        Paragraph("Figure 1. Carbon dioxide in the air, by week.", caption),
    ]),
    KeepTogether([
        Paragraph("The season", heading),
        Paragraph(
            "Within a year the curve breathes. Plants of the northern hemisphere take carbon dioxide in as they grow, and "
            "give it back as they decay: the air holds most of it in May, and least in early autumn. From top to bottom "
            f"the season moves it by {season.max() - season.min():.1f} ppm.", body),
        picture(season_chart, 17 * cm),
        Paragraph("Figure 2. Mean difference from the trend, by month.", caption),
    ]),
    Paragraph("Year by year", heading),
    Paragraph("Parts per million. Change: the mean less the mean of the year before. 1958 and 1964 have gaps.", caption),
    Spacer(1, 0.2 * cm),
    table,
    Spacer(1, 0.4 * cm),
    Paragraph("Source: C. D. Keeling and T. P. Whorf, Atmospheric CO<sub>2</sub> concentrations derived from flask air samples at "
              "sites in the SIO network, CDIAC, 2004; public domain, by way of statsmodels.", caption),
]


def footer(canvas, document):
    canvas.setFont("Helvetica", 9)
    canvas.setFillColor(grey)
    canvas.drawString(2 * cm, 1.2 * cm, "Carbon dioxide at Mauna Loa")
    canvas.drawRightString(A4[0] - 2 * cm, 1.2 * cm, f"Page {document.page}")


report = SimpleDocTemplate("co2_report.pdf", pagesize=A4, title="Carbon dioxide at Mauna Loa", author="Belljar example",
                           leftMargin=2 * cm - 6, rightMargin=2 * cm - 6,  # the frame pads by 6 points
                           topMargin=2 * cm, bottomMargin=2.2 * cm)
report.build(story, onFirstPage=footer, onLaterPages=footer)

f"{report.page} pages, {years.shape[0]} years, {end['mean'] - start['mean']:.1f} ppm more since 1959"
