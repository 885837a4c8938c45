"""An existing workbook brought up to date, its formatting kept.

    belljar run examples/excel_report.py
    belljar run examples/excel_update.py --file belljar-out/us_economy.xlsx

openpyxl reads a workbook, and writes all of it anew. It keeps values, formulas,
cell styles, number formats, widths, frozen panes, filters, conditional formats,
charts and pictures. It does not keep: drawn shapes, macros (unless asked with
keep_vba=True), what Excel added to the format later (sparklines, solid data
bars) and the values stored beside formulas: Excel works them out on opening.
So save under a new name, and look at what you got.
"""

from copy import copy

import openpyxl
import pandas as pd
import statsmodels.datasets as public_data
from openpyxl.formatting.formatting import ConditionalFormattingList

book = openpyxl.load_workbook("us_economy.xlsx")
quarters, summary = book["Quarters"], book["Summary"]
old_last = quarters.max_row
until = quarters.cell(old_last, 1).value

# The quarters since the workbook was made, each cell styled as the one above.
data = public_data.macrodata.load_pandas().data
data.index = pd.to_datetime({"year": data["year"], "month": data["quarter"] * 3 - 2, "day": 1})
new = data[data.index > until]
for start, row in new.iterrows():
    quarters.append([start.to_pydatetime(), row["realgdp"], row["realcons"], row["unemp"] / 100, row["infl"] / 100])
    for cell in quarters[quarters.max_row]:
        cell._style = copy(quarters.cell(old_last, cell.column)._style)
last = quarters.max_row


def longer(reference):
    """$B$2:$B$197 to $B$2:$B$204, where it ends on the old last row."""
    return reference.replace(f"${old_last}", f"${last}")


# What spoke of the old rows now speaks of all rows: filter, conditional
# formats, formulas, the chart's series.
quarters.auto_filter.ref = f"A1:E{last}"
rules, quarters.conditional_formatting = quarters.conditional_formatting, ConditionalFormattingList()
for area in rules:
    for rule in area.rules:
        quarters.conditional_formatting.add(str(area.sqref).replace(str(old_last), str(last)), rule)
for row in summary["B5:E9"]:
    for cell in row:
        cell.value = longer(cell.value)
for series in summary._charts[0].series:
    for numbers in (series.cat.numRef, series.val.numRef):
        numbers.f = longer(numbers.f)
        numbers.numCache = None  # the old points, stored for readers which do not calculate

# A changed value: the note under the title says how far the data goes.
summary["A2"] = f"Data to {new.index[-1]:%B %Y}. {summary['A2'].value}"

book.calculation.fullCalcOnLoad = True  # the stored values are gone: work them out on opening
book.save("us_economy_updated.xlsx")

f"{len(new)} quarters added: rows {old_last + 1} to {last}"
