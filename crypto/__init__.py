"""Keys, signatures, digests and Merkle trees: the ground floor, which knows nothing of PBFT."""
