"""The command line: one verb a file. The hot ones, `status` and `refresh`, import next to nothing."""
