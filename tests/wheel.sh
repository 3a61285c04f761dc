#!/usr/bin/env bash
# Builds a wheel, installs it into an empty environment, and restores from another folder with it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/environment"
"$work/environment/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" .
"$work/environment/bin/pip" install --quiet --disable-pip-version-check "$work"/cvsa_jax-*.whl ${CONSTRAINT:-}
mkdir "$work/elsewhere" && cp experiments/samples/clothing_001.png "$work/elsewhere"
cd "$work/elsewhere"
export XDG_CACHE_HOME="$work/cache"
"$work/environment/bin/cvsa" --version
"$work/environment/bin/cvsa" restore --task=sr4 --input=. --image_size=64 --num_steps=8 --output="$work/out"
"$work/environment/bin/python" -m cvsa_jax restore --list_tasks > /dev/null
"$work/environment/bin/python" -c "from cvsa_jax import load_prior; load_prior(); load_prior('kernels16')"
test -f "$work/out/restored/clothing_001.png" && test -d "$work/cache/cvsa_jax"
echo "the wheel works"
