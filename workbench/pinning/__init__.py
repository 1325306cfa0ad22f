"""Recorded decisions as regression tests: a file each, with what policies read of it and what it must come to.

One rule: a pin says only what the record says. What it does not hold (never asked, left out, replaced) is never taken
for a value: a check that hangs on it is `undecided`, and says what to do.

`making` writes pins, `pinned` is the file, `checking` holds one against a bundle, `cases` makes
tests of them.
"""
