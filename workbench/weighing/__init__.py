"""What a change is worth: what is at stake in each decision, the numbers that follow, what simulators add."""
