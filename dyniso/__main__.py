"""The `dyniso` command, also as `python -m dyniso`; one line where the packages that it needs are not installed."""

import sys

from .checks import MissingExtraError


def main() -> int:
    """Run the command line; returns the exit code, 1 where an extra is missing."""
    try:
        from .cli import main as run
    except MissingExtraError as error:
        print("dyniso:", error, file=sys.stderr)
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
