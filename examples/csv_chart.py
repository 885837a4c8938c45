"""A CSV goes in, a table and a chart come out.

    belljar run examples/csv_chart.py --file examples/data/grunfeld.csv

The file: what eleven large US firms invested in plant and equipment each year
from 1935 to 1954 (Grunfeld's classic data; millions of 1947 dollars).
"""

import matplotlib.pyplot as plt
import pandas as pd

data = pd.read_csv("grunfeld.csv")

# One row a firm: total, yearly mean and best year of its investment.
firms = (
    data.groupby("firm")["invest"]
    .agg(total="sum", mean="mean", peak="max")
    .sort_values("total", ascending=False)
)
print(firms.round(1).to_string())
firms.round(2).to_csv("firms.csv")

# One line a firm; the three largest in colour, named at the line's end.
years = data.pivot(index="year", columns="firm", values="invest")
colours = dict(zip(firms.index[:3], ["#1f4e79", "#d55e00", "#2a9d8f"]))

fig, ax = plt.subplots(figsize=(9, 5), layout="constrained")
fig.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
for firm in reversed(firms.index):
    ax.plot(years.index, years[firm], color=colours.get(firm, "#c8c8c8"),
            linewidth=2.4 if firm in colours else 1.2)
for firm, colour in colours.items():
    ax.annotate(firm, (years.index[-1], years[firm].iloc[-1]), xytext=(8, 0),
                textcoords="offset points", va="center", color=colour, weight="bold")
ax.annotate("the other eight", (years.index[-1], 80), xytext=(8, 0),
            textcoords="offset points", va="center", color="#7f7f7f")

ax.set_title("After the war, General Motors pulled away", loc="left",
             fontsize=14, weight="bold", pad=14)
ax.set_ylabel("Gross investment, millions of 1947 dollars")
ax.set_xticks(range(1935, 1955, 3))
ax.set_xlim(1935, 1954)
ax.set_ylim(0)
ax.grid(axis="y", color="#e5e5e5")
ax.spines[["top", "right", "left"]].set_visible(False)
ax.tick_params(length=0, pad=6)
fig.savefig("investment.png", dpi=150)

# The value of the last expression is the result of the run.
firms["total"].round(1).head(4).to_dict()
