"""These tests need a browser: ``make test-browser`` installs one and says in ``CHROMIUM`` where it is."""

import os

collect_ignore_glob = [] if os.environ.get("CHROMIUM") else ["test_*.py"]
