"""A PDF form, made and then filled in.

    belljar run examples/pdf_form.py

reportlab makes the empty form; pypdf fills it in with one wine's analysis, and
draws each value where it stands, so that every viewer shows and prints it. To
fill a form you have, give it with --file and begin at "Fill it in".
The data: chemical analysis of 178 Italian wines (scikit-learn's `load_wine`).
"""

from pypdf import PdfReader, PdfWriter
from reportlab.lib.colors import HexColor, white
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import cm
from reportlab.pdfgen.canvas import Canvas
from sklearn.datasets import load_wine

labels = {  # column of the data: label on the form
    "alcohol": "Alcohol",
    "malic_acid": "Malic acid",
    "magnesium": "Magnesium",
    "total_phenols": "Total phenols",
    "color_intensity": "Colour intensity",
    "hue": "Hue",
    "proline": "Proline",
}
cultivars = ["class_0", "class_1", "class_2"]
blue, grey = HexColor("#1f4e79"), HexColor("#595959")

# --- Make the empty form ---
page = Canvas("wine_form.pdf", pagesize=A4)
page.setTitle("Certificate of analysis")
form, top = page.acroForm, A4[1]
box = {"borderColor": HexColor("#9dbcd4"), "fillColor": HexColor("#f2f6fa"), "borderWidth": 0.75,
       "fontName": "Helvetica", "fontSize": 11, "height": 0.75 * cm}

page.setFillColor(blue)
page.rect(0, top - 3.2 * cm, A4[0], 3.2 * cm, stroke=0, fill=1)
page.setFillColor(white)
page.setFont("Helvetica-Bold", 22)
page.drawString(2 * cm, top - 2 * cm, "Certificate of analysis")
page.setFont("Helvetica", 11)
page.drawString(2 * cm, top - 2.65 * cm, "Wine, one sample")

page.setFillColor(grey)
lines = {"sample": "Sample number"} | labels
for row, (name, label) in enumerate(lines.items()):
    y = top - (4.9 + 1.15 * row) * cm
    page.drawString(2 * cm, y, label)
    form.textfield(name=name, tooltip=label, x=7 * cm, y=y - 0.22 * cm, width=5 * cm, **box)

y = top - (4.9 + 1.15 * len(lines) + 0.3) * cm
page.drawString(2 * cm, y, "Cultivar")
for column, cultivar in enumerate(cultivars):
    x = (7 + 3.4 * column) * cm
    form.checkbox(name=cultivar, tooltip=cultivar, x=x, y=y - 0.15 * cm, size=0.55 * cm,
                  borderColor=box["borderColor"], fillColor=box["fillColor"], borderWidth=0.75, fieldFlags="")
    page.drawString(x + 0.8 * cm, y, f"Grower {column + 1}")
page.drawString(2 * cm, y - 1.3 * cm, "Remarks")
form.textfield(name="remarks", tooltip="Remarks", x=7 * cm, y=y - 3.2 * cm, width=12 * cm, fieldFlags="multiline",
               **(box | {"height": 2.3 * cm}))
page.save()

# --- Fill it in: the sample with the most alcohol ---
wines = load_wine(as_frame=True).frame
number = wines["alcohol"].idxmax()
wine = wines.loc[number]
rank = wines["proline"].rank(ascending=False).astype(int)[number]

values = {"sample": str(number)} | {name: f"{wine[name]:g}" for name in labels}
values["remarks"] = (f"Highest alcohol of {len(wines)} samples.\n"
                     f"Proline: place {rank} of {len(wines)}; the mean is {wines['proline'].mean():.0f}.")
values |= {cultivar: "/Yes" if index == wine["target"] else "/Off" for index, cultivar in enumerate(cultivars)}

writer = PdfWriter(clone_from="wine_form.pdf")
# False: the values are drawn here and now, not left to the viewer to draw.
writer.update_page_form_field_values(writer.pages[0], values, auto_regenerate=False)
writer.write("form_filled.pdf")

{name: field.value for name, field in PdfReader("form_filled.pdf").get_fields().items()}
