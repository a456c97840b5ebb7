"""The client library: sessions, f+1 matching signed replies, fast reads, typed key-value calls."""
