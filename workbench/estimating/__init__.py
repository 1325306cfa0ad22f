"""What a comparison says of future traffic: intervals over sessions, gates, and the verdict on shipping."""
