#!/usr/bin/env bash
# Lint and format: what people call before a commit, and CI before the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
"$python" -m ruff check .
"$python" -m ruff format --check .
