#!/bin/sh
# lock.sh [--upgrade]: write constraints.txt, the exact versions of everything, from the ranges in pyproject.toml. Needs uv.
# torch keeps its version (TORCH=x.y.z changes it) and loses its build tag, and CUDA's packages are left out: the file
# must fit a CPU build and a GPU build alike.
set -eu
torch=${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}
[ -n "${UV_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$(echo "${PIP_FIND_LINKS:-}" | tr ' ' ',')"
new=$(mktemp)
trap 'rm -f "$new"' EXIT
sed '/^torch==/d' constraints.txt >"$new" # the present pins: kept unless --upgrade
echo "torch==$torch" | uv pip compile --quiet --python-version 3.11 --all-extras --no-header --no-annotate \
    --constraint - "$@" --output-file "$new" pyproject.toml
sed -e 's/^\(torch==[^+]*\)+.*/\1/' -e '/^nvidia-/d' -e '/^triton==/d' -e '/^cuda-/d' "$new" >constraints.txt.new
mv constraints.txt.new constraints.txt
