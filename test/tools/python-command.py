#!/usr/bin/python3 -IS
"""A Python program of /usr/bin, by the name that this file has, run by the python-commands.py that listens at `socket` beside it."""

import json
import os
import socket
import sys

directory, name = os.path.split(os.path.abspath(__file__))
request = [f"/usr/bin/{name}", sys.argv[1:], dict(os.environ)]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(f"{directory}/socket")
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16)))
