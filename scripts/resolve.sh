#!/usr/bin/env bash
# Whether jaxgear installs beside what its users have, on each Python and machine, and whether the
# versions in constraints.txt install and train. `scripts/resolve.sh lock` brings that file up to
# date. 40 s of the processor, one to two minutes of waiting for the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
export uv=${UV:-$([ -x .venv/bin/uv ] && echo .venv/bin/uv || echo uv)}
command -v "$uv" >/dev/null || { echo "scripts/resolve.sh: no uv; pip install '.[test]'"; exit 2; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if ! echo uv | "$uv" pip compile -q --refresh - >/dev/null 2>"$tmp/why"; then
  echo "scripts/resolve.sh: skipped, as no package index can be reached ($(tail -n 1 "$tmp/why"))"
  exit 0
fi
compile() { # FILE: its versions stay where they can
  "$uv" pip compile -q --universal --python-version 3.11 --all-extras --no-annotate \
    --custom-compile-command "scripts/resolve.sh lock" pyproject.toml -o "$@"
}
if [ "${1:-}" = lock ]; then
  compile constraints.txt --upgrade
  exit
fi

echo "+ resolve beside other tools: Python 3.11 to 3.14, Linux (x86, Arm) and macOS"
# Releases of today: without a floor, a conflict is resolved by a release of years ago.
printf '%s\n' 'jupyterlab>=4.4' 'gradio>=6' 'mlflow>=3' 'tensorboard>=2.20' 'label-studio-sdk>=2' \
  >"$tmp/beside"
for python in 3.11 3.12 3.13 3.14; do
  for machine in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do
    echo "$python" "$machine"
  done
done | beside="$tmp/beside" xargs -P 4 -L 1 bash -c '
  # All as wheels, but promise (of tensorflow-datasets), which has none.
  "$uv" pip compile -q --only-binary :all: --no-binary promise --python-version "$0" \
    --python-platform "$1" pyproject.toml "$beside" >/dev/null ||
    { echo "scripts/resolve.sh: jaxgear does not resolve on Python $0, $1"; exit 255; }'

echo "+ the versions of constraints.txt"
cp constraints.txt "$tmp/constraints.txt"
compile "$tmp/constraints.txt"
diff constraints.txt "$tmp/constraints.txt" ||
  { echo "scripts/resolve.sh: constraints.txt is out of date: scripts/resolve.sh lock"; exit 1; }
"$uv" venv -q "$tmp/venv"
mkdir "$tmp/clone" # without build/, whose old files would come along
cp -r jaxgear experiments pyproject.toml setup.py README.md LICENSE "$tmp/clone"
"$uv" pip install -q --python "$tmp/venv" -c constraints.txt "$tmp/clone"
cd "$tmp"
venv/bin/python -m jaxgear.experiments.scratch --data drawn:60 --image-size 16 --batch-size 8 \
  --width 0.1 --epochs 1 --out runs | tail -n 1
