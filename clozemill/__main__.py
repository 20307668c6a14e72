"""`python -m clozemill`."""

import sys

from clozemill import main

sys.exit(main())
