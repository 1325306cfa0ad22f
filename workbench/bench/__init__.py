"""Benchmarks: a seeded support desk, lakes made of it, and the commands that measure on them.

Nothing else of the workbench imports this package.
"""
