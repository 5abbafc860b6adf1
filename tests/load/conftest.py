"""What the load tests serve: the small release of tests/serving."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from release_fixtures import *  # noqa: F403 - its fixtures
