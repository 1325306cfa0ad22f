"""What changed between two windows of a log, and which policies read it."""
