#!/usr/bin/env bash
# Lint, format and spelling: what people call before a commit, and CI before the slow tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
"$python" -m ruff check .
"$python" -m ruff format --check .
git ls-files -z -- '*.py' '*.md' '*.sh' '*.yaml' '*.toml' '*.css' '*.js' '*.html' .ci |
  xargs -0 "$python" -m codespell_lib --toml pyproject.toml
# Words for which the field has better ones: split, near-duplicate, chunk of steps.
if git grep -nE ' [w]hat comes| [t]wins|what is [t]hought|_[s]ide\(|[S]tretch'; then
  echo "scripts/check.sh: say it in the field's words"
  exit 1
fi
