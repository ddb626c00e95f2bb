"""Swift on loopback, whole in one process: python3 serve-swift.py DIRECTORY PORT. DIRECTORY has to be where files may have extended
attributes. Accounts are those of tempauth below, or of Keystone with KEYSTONE_URL and KEYSTONE_PASSWORD in the environment. S3 is
served at the same port by those of tempauth."""

import os
import sys

import eventlet

eventlet.monkey_patch()

from eventlet import wsgi
from swift.common import utils
from swift.common.ring import RingBuilder
from swift.common.wsgi import SwiftHttpProtocol, loadapp

TEMPAUTH = """
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_reader = testing
"""
KEYSTONE = """
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {url}
auth_url = {url}
auth_type = password
username = swift
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
delay_auth_decision = true
service_token_roles_required = false

[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
"""
PROXY = """
[DEFAULT]
swift_dir = {directory}
workers = 0

[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats {auth} copy slo dlo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:cache]
use = call:__main__:memory_cache

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:s3api]
use = egg:swift#s3api
location = eu-test-1
# The name of this host of which a bucket's name may stand in front; by any other one buckets are in the path.
storage_domain = s3.test

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo
"""
STORAGE = """
[DEFAULT]
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
disable_fallocate = true
workers = 0

[pipeline:main]
pipeline = {kind}

[app:{kind}]
use = egg:swift#{kind}
"""


class MemoryCache:
    """What a memcached would keep, which here nobody shares."""

    def __init__(self):
        self.kept = {}

    def get(self, key, *_, **__):
        return self.kept.get(key)

    def set(self, key, value, *_, **__):
        self.kept[key] = value

    def incr(self, key, delta=1, *_, **__):
        self.kept[key] = int(self.kept.get(key) or 0) + delta
        return self.kept[key]

    def delete(self, key, *_, **__):
        self.kept.pop(key, None)


def memory_cache(*_, **__):
    cache = MemoryCache()

    def add_to(app):
        def with_cache(environ, start_response):
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return with_cache

    return add_to


class Quiet:
    """Nobody reads a log of requests."""

    def write(self, *_):
        pass


directory, port = sys.argv[1:]
utils.HASH_PATH_SUFFIX = utils.HASH_PATH_PREFIX = b"of-a-test"


def serve(text, name, listener):
    conf = os.path.join(directory, f"{name}.conf")
    with open(conf, "w") as file:
        file.write(text)
    app = loadapp(conf, global_conf={"log_name": name})
    return eventlet.spawn(
        wsgi.server, listener, app, log=Quiet(), log_output=False, protocol=SwiftHttpProtocol, debug=False
    )


os.makedirs(os.path.join(directory, "devices", "disk"), exist_ok=True)
for kind in ("account", "container", "object"):
    listener = eventlet.listen(("127.0.0.1", 0))
    ring = RingBuilder(1, 1, 1)
    place = {"ip": "127.0.0.1", "port": listener.getsockname()[1], "replication_ip": "127.0.0.1"}
    place["replication_port"] = place["port"]
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "disk", **place})
    ring.rebalance()
    ring.get_ring().save(os.path.join(directory, f"{kind}.ring.gz"))
    serve(STORAGE.format(directory=directory, kind=kind), kind, listener)

keystone = os.environ.get("KEYSTONE_URL")
if keystone is None:
    proxy, auth = PROXY + TEMPAUTH, "s3api tempauth"
else:
    proxy = PROXY + KEYSTONE.format(url=keystone, password=os.environ["KEYSTONE_PASSWORD"])
    auth = "authtoken keystoneauth"
serve(proxy.format(directory=directory, auth=auth), "proxy", eventlet.listen(("127.0.0.1", int(port)))).wait()
