"""Frames, authenticated connections and bounded queues: bytes and identities, no PBFT."""
