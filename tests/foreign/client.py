#!/usr/bin/env python3
"""The control plane as a backend meets it: grpcio with stubs generated from the proto, and players who are connected.

Usage: client.py <duelhub>
"""

import sys

from suites import doors, duels, errors, limits, node, pushes, shutdown, stream, tickets, watching
from support.cases import main

if __name__ == "__main__":
    sys.exit(main([
        duels.duels, tickets.tickets, pushes.pushes, stream.stream, watching.watching, errors.errors, errors.request_ids,
        node.node_health_and_reflection, doors.bearer_token, limits.limits, shutdown.shutdown,
    ]))
