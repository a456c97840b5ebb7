"""Whole clusters in one process on virtual time, from one seed, with checkers."""
