"""`vidrestore ui` whose commands only pretend to work; see `stand_in_command`."""

import functools
import sys
from pathlib import Path

from vidrestore.cli import main
from vidrestore.common.interruption import Interruption
from vidrestore.web import server

if __name__ == "__main__":
    stand_in = (sys.executable, str(Path(__file__).with_name("stand_in_command.py")))
    server.ServerOptions = functools.partial(server.ServerOptions, command=stand_in)
    interruption = Interruption()
    interruption.install()
    main(["ui", *sys.argv[1:]], interruption)
