"""``python -m simulator``: the command, where its script is not on the path."""

import sys

from simulator.cli import main

sys.exit(main())
