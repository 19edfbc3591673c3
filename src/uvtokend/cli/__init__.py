"""The command line: one verb per file. `status` and `refresh`, which run often, import next to nothing."""
