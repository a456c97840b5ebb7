"""Applications of one's own: run them with `pbft node --app examples.ledger:Ledger`."""
