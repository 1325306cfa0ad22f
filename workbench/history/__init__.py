"""The recorded decisions of a lake as typed columns, decided again in one pass.

One rule: every row comes out with what `workbench.rows.RowEngine` would say of it, or is handed over to it, with a
reason.
"""
