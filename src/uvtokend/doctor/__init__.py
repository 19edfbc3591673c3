"""Why an install fails although a token is there: one theme per file, one small function per check.

::

    facts      everything that the checks look at, read once
    finding    what a check returns
    checks     the list of all checks, and how they are run side by side
    configuration, daemon, netrc, disk, uv, project, programs    checks that ask nobody
    network    checks that ask the indexes, each with the token that uvtokend delivered
    permissions    what a refusal means for each provider, and what to ask the administrator for

A check never runs anything of the project, asks no keyring, and sends no credential but our own, and that only to the
index's URL in config.toml, without following a redirect.
"""
