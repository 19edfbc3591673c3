#!/usr/bin/env bash
# Let lintian judge a Debian package: packaging/deb/lint.sh PACKAGE
#
# It unpacks and reads thousands of bundled files, which takes minutes, so it is no part of packaging/lifecycle.py.
set -euo pipefail
exec lintian --allow-root --fail-on error,warning "$1"
