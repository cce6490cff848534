"""What the tests of this folder share."""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
DEPLOY = REPO / "deploy"

# Its hub, its backend and its player serve here, too.
sys.path.insert(0, str(REPO / "tests" / "foreign"))
