"""Find out why an install fails although there is a token: one theme per file, one small function per check.

::

    facts      everything that the checks read, read once
    finding    the result of a check
    checks     the list of all checks, which are run in parallel
    configuration, daemon, netrc, disk, uv, project, programs    checks without the network
    network    checks that ask the indexes, each with the token that uvtokend delivered
    permissions    the meaning of a refusal for each provider, and the words to ask the administrator with

A check never runs code of the project and never asks a keyring. It sends only our own credential, only to the index's
URL in config.toml, and follows no redirect.
"""
