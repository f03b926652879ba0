#!/bin/sh
# setup.sh STAMP: create .venv with Python >= 3.11 and install the pinned dependencies; touch STAMP when done.
# pip and uv read their own environment variables; a folder of wheels given to pip is given to uv too.
set -eu
stamp=$1

python=
for candidate in "${PYTHON:-}" python3.11 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
have_uv=$(uv --version >/dev/null 2>&1 && echo yes || echo no)

if [ ! -x .venv/bin/python ]; then
    if [ -z "$python" ]; then
        echo "setup: Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1 || echo missing). Set PYTHON=/path/to/python." >&2
        exit 1
    fi
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv .venv || { rm -rf .venv; exit 1; }
    elif [ "$have_uv" = yes ]; then
        uv venv --seed --python "$python" .venv
    else
        echo "setup: $python has no venv module; install it (Debian: apt install python3-venv), or install uv." >&2
        exit 1
    fi
fi

set -- -e '.[book,test]' -c constraints.txt
if [ "$have_uv" = yes ]; then
    if [ -z "${UV_FIND_LINKS:-}" ] && [ -n "${PIP_FIND_LINKS:-}" ]; then
        UV_FIND_LINKS=$(echo "$PIP_FIND_LINKS" | tr ' ' ',')
        export UV_FIND_LINKS
    fi
    if [ -z "${UV_DEFAULT_INDEX:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
    fi
    # bytecode too, as pip does: where none may be written later, each of many processes would compile torch again
    uv pip install --quiet --compile-bytecode --python .venv/bin/python "$@" && touch "$stamp" && exit 0
    echo "setup: uv could not install; trying pip" >&2
fi
.venv/bin/python -m pip install --quiet "$@"
touch "$stamp"
