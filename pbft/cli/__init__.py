"""The `pbft` command, one file per subcommand."""
