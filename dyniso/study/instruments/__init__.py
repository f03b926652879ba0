"""What is recorded: of a whole stack at once (`stacked`), or by instruments that look at one net (`single`).

Both give values by (layer, metric), the keys of a stored row.
"""
