"""What is drawn in a notebook: widgets over Python values; a channel for state, for bulk, for what is chosen.

One rule: Python decides what is shown and what is chosen. The browser asks by typed messages (`messages`), gets the
rows it can see as Arrow (`table`), and nothing that it says is executed, stored or taken for a name unchecked.

`view` is what all of them share, `background` the thread that work goes to, `testing` a browser for tests.
"""
