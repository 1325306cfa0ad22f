"""Versions side by side in a notebook: what changes, what it is worth, and each decision under every version.

One rule: whatever is clicked becomes a filter in Python (`view.where`), and the rows it lists come back as a
LazyFrame (`view.selection`): a view shows nothing that cannot be had as a table.

From the inside out: `conditions` and `filters` say which rows are meant, `cube` counts them, `candidates` holds the
versions, `board` puts these together without a browser, `heads` and `measures` say ship or not and each effect,
`details` one decision, and `view` draws it.
"""
