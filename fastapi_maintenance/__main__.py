"""``python -m fastapi_maintenance``: the command line."""

import sys

from .cli import main

sys.exit(main())
