"""What is recorded: of a whole stack at once (`stacked`, `before`), or by instruments that look at one net (`single`).

All give values by (layer, metric), the keys of a stored row.
"""
