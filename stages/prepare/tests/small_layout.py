"""The layout of a plate of four wells, for tests of whole stages."""

LAYOUT = """
format = 1
name = "small"
[files]
pattern = '(?P<row>[AB])(?P<column>\\d)-(?P<channel>[12])\\.png'
size = [600, 300]
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 2
columns = 2
[[wells]]
rows = "A-B"
columns = "1-2"
compound = "x"
unit = "M"
roles = ["negative", "positive"]
doses = [0, 1e-7]
[folds]
A = "A"
B = "B"
"""
