"""The disk: a replica's votes and log, the application's state with its Merkle trees."""
