"""An Excel workbook with formats, formulas and a native chart.

    belljar run examples/excel_report.py

The data: the US economy by quarter, 1959 to 2007 (statsmodels' `macrodata`;
excel_update.py adds the quarters after that).
"""

import pandas as pd
import statsmodels.datasets as public_data
import xlsxwriter

data = public_data.macrodata.load_pandas().data
data = data[data["year"] <= 2007]
table = pd.DataFrame({
    "Quarter from": pd.to_datetime({"year": data["year"], "month": data["quarter"] * 3 - 2, "day": 1}),
    "Real GDP ($bn)": data["realgdp"],
    "Consumption ($bn)": data["realcons"],
    "Unemployment": data["unemp"] / 100,
    "Inflation": data["infl"] / 100,
})

book = xlsxwriter.Workbook("us_economy.xlsx")
book.set_properties({"title": "The US economy by quarter", "author": "Belljar example"})
title = book.add_format({"bold": True, "font_size": 16, "font_color": "#1F4E79"})
note = book.add_format({"italic": True, "font_color": "#7F7F7F"})
heading_style = {"bold": True, "font_color": "#FFFFFF", "bg_color": "#1F4E79", "valign": "vcenter"}
first_header = book.add_format(heading_style | {"align": "left"})
header = book.add_format(heading_style | {"align": "right"})
year = book.add_format({"align": "left"})
month = book.add_format({"num_format": "mmm yyyy", "align": "left"})
money = book.add_format({"num_format": "#,##0.0"})
percent = book.add_format({"num_format": "0.0%"})
alarm = book.add_format({"font_color": "#9C0006", "bg_color": "#FFC7CE"})
summary, quarters = book.add_worksheet("Summary"), book.add_worksheet("Quarters")

# Sheet "Quarters": the data, under a header which stays in view and filters.
last = len(table) + 1  # the last row, as Excel counts
for column, (heading, style) in enumerate(zip(table, [month, money, money, percent, percent])):
    quarters.write(0, column, heading, header if column else first_header)
    quarters.write_column(1, column, table[heading], style)
quarters.set_row(0, 24)
quarters.set_column("A:A", 14)
quarters.set_column("B:E", 20)
quarters.freeze_panes(1, 1)
quarters.autofilter(f"A1:E{last}")
quarters.conditional_format(f"D2:D{last}", {"type": "2_color_scale", "min_color": "#FFFFFF", "max_color": "#F4B183"})
quarters.conditional_format(f"E2:E{last}", {"type": "cell", "criteria": "<", "value": 0, "format": alarm})
quarters.repeat_rows(0)
quarters.fit_to_pages(1, 0)

# Sheet "Summary": formulas over the data, one row a decade. Each is saved with
# its value, for readers which show a workbook without calculating it.
summary.write("A1", "The US economy, decade by decade", title)
summary.write("A2", "Billions of chained 2005 dollars. Source: FRED and BLS, by way of statsmodels.", note)
summary.write("A4", "Decade from", first_header)
summary.write_row("B4", ["Mean GDP ($bn)", "Mean unemployment", "Mean inflation", "Quarters"], header)
for row, decade in enumerate(range(1960, 2010, 10), start=5):
    inside = table[table["Quarter from"].dt.year.between(decade, decade + 9)]
    dates = f"Quarters!$A$2:$A${last}"
    when = f'{dates}, ">="&DATE($A{row}, 1, 1), {dates}, "<"&DATE($A{row} + 10, 1, 1)'
    summary.write(f"A{row}", decade, year)
    for cell, source, heading, style in [("B", "B", "Real GDP ($bn)", money), ("C", "D", "Unemployment", percent),
                                         ("D", "E", "Inflation", percent)]:
        values = f"Quarters!${source}$2:${source}${last}"
        summary.write_formula(f"{cell}{row}", f"=AVERAGEIFS({values}, {when})", style, inside[heading].mean())
    summary.write_formula(f"E{row}", f"=COUNTIFS({when})", None, len(inside))
summary.hide_gridlines(2)
summary.set_row(0, 26)
summary.set_row(3, 24)
summary.set_column("A:E", 20)
summary.set_landscape()
summary.fit_to_pages(1, 1)

chart = book.add_chart({"type": "line"})
for column, colour in [("B", "#1F4E79"), ("C", "#D55E00")]:
    chart.add_series({
        "name": f"=Quarters!${column}$1",
        "categories": f"=Quarters!$A$2:$A${last}",
        "values": f"=Quarters!${column}$2:${column}${last}",
        "line": {"color": colour, "width": 2.25},
    })
chart.set_title({"name": "Real GDP and consumption", "name_font": {"size": 13, "color": "#404040"}})
chart.set_x_axis({"date_axis": True, "num_format": "yyyy", "major_unit": 5, "major_unit_type": "years",
                  "num_font": {"color": "#595959"}})
chart.set_y_axis({"num_format": "#,##0", "num_font": {"color": "#595959"}, "line": {"none": True},
                  "major_gridlines": {"visible": True, "line": {"color": "#E5E5E5"}}})
chart.set_legend({"position": "bottom"})
chart.set_size({"width": 725, "height": 330})
summary.insert_chart("A12", chart)
book.close()

f"{len(table)} quarters, GDP {table['Real GDP ($bn)'].iloc[0]:,.0f} to {table['Real GDP ($bn)'].iloc[-1]:,.0f} billion dollars"
