"""python -m vidrestore, and the command `vidrestore`."""

from __future__ import annotations

import sys
from typing import NoReturn

from vidrestore.common.ending import interrupted, leave
from vidrestore.common.interruption import Interruption


def main() -> NoReturn:
    """Run the command that this process was started for."""
    interruption = Interruption()
    try:
        interruption.install()  # before anything is loaded, which takes long
        from vidrestore.cli import main as run

        run(interruption=interruption)
    except SystemExit as ending:
        if not isinstance(ending.code, int):
            raise
        leave(ending.code)
    except (KeyboardInterrupt, Exception):
        if not interruption.was_raised:
            raise
        interruption.settle()
        leave(interrupted(sys.argv[1:]))


if __name__ == "__main__":
    main()
