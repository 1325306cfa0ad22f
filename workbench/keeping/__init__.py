"""Replays kept in the lake, and opened again with the digest they had."""
