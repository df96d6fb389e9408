#!/usr/bin/env python
"""`wm` as a container's first process.

The kernel drops signals that process 1 has no handler for. So there is one from the first line on, and `docker stop`
ends a container that still imports.
"""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from wm.main import main

    main()
