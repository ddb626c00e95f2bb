"""Barbican's API on loopback: python3 serve-barbican.py DIRECTORY PORT. The directory has barbican.conf and paste.ini."""

import sys
from wsgiref import simple_server

from barbican.common import config
from paste import deploy


class QuietHandler(simple_server.WSGIRequestHandler):
    def log_message(self, *words):
        pass


directory, port = sys.argv[1:]
config.parse_args(config.CONF, args=["--config-file", f"{directory}/barbican.conf"])
application = deploy.loadapp(f"config:{directory}/paste.ini", name="main")
simple_server.make_server("127.0.0.1", int(port), application, handler_class=QuietHandler).serve_forever()
