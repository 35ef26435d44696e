"""python -m vidrestore, and the command `vidrestore`."""

from __future__ import annotations

import sys
from typing import NoReturn

from vidrestore.common.ending import interrupted
from vidrestore.common.interruption import Interruption


def main() -> NoReturn:
    """Run the command that this process was started for."""
    interruption = Interruption()
    interruption.install()  # before anything is loaded, which takes long enough to be interrupted
    try:
        from vidrestore.cli import main as run

        run(interruption=interruption)
    except KeyboardInterrupt:
        interruption.settle()
        sys.exit(interrupted(sys.argv[1:]))


if __name__ == "__main__":
    main()
