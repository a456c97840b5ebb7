"""Faulty-node modes: each wraps an honest node at its transport."""
