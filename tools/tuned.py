"""Write dyniso/study/specs/tuned.py from the committed tables of the sweeps.

python tools/tuned.py           for every stored sweep, the candidate of each method with the best late score
python tools/tuned.py --check   writes nothing; exit 1 if the file is not what the tables say

A stream without a stored sweep gets no entry: its methods take their first candidate. A table that is damaged or of
other settings is an error (exit 1), and the file stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dyniso.report import tuning
from dyniso.study import specs, store

TARGET = Path(specs.__file__).with_name("tuned.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is not up to date")
    options = parser.parse_args(arguments)
    try:
        chosen = tuning.choices()
    except store.UnusableError as error:
        print(f"tuned.py: {error}", file=sys.stderr)
        return 1
    text = tuning.module_text(chosen)
    if options.check:
        if TARGET.read_text(encoding="utf-8") == text:
            return 0
        print(f"tuned.py: {TARGET.name} is not what the tables say; `python tools/tuned.py` writes it", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    for stream in tuning.swept_streams():
        print(f"{stream}: {f'{len(chosen[stream])} methods' if stream in chosen else 'not run'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
