"""The protocol: pure and deterministic. No I/O, no clock, no randomness, no threads."""
