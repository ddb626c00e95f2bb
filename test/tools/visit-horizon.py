"""Debian's Horizon, and a browser that visits it: python3 visit-horizon.py KEYSTONE_URL. Each line of the input is a visit,
{"path", "form"}, the form being what is posted, or null; each line of the output says what was seen: {"status", "tables", "messages",
"errors"}, with rows of tables by their id, name and status, and what was wrong in the form by its fields."""

import json
import logging
import os
import sys
import warnings

sys.path.insert(0, "/usr/share/openstack-dashboard")
os.environ["DJANGO_SETTINGS_MODULE"] = "openstack_dashboard.settings"
warnings.simplefilter("ignore")
warnings.showwarning = lambda *_, **__: None
logging.disable(logging.CRITICAL)

from openstack_dashboard import settings

settings.OPENSTACK_KEYSTONE_URL = sys.argv[1]
settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
settings.OPENSTACK_CINDER_FEATURES = {"enable_backup": True}

import django

django.setup()

from django.contrib.messages import get_messages
from django.test import Client
from django.test.utils import setup_test_environment

setup_test_environment()
browser = Client()


def visit(path, form):
    answer = browser.get(path) if form is None else browser.post(path, form)
    seen = {"status": answer.status_code, "tables": {}, "errors": {}}
    layers = [layer for part in answer.context or [] for layer in getattr(part, "dicts", [])]
    for value in [value for layer in layers for value in layer.values()]:
        if hasattr(value, "get_rows"):
            seen["tables"][value.name] = [
                {name: getattr(row, name, None) for name in ("id", "name", "status")} for row in value.data
            ]
        elif getattr(value, "is_bound", False) and hasattr(value, "fields"):
            seen["errors"].update(value.errors)
    seen["messages"] = [str(message) for message in get_messages(answer.wsgi_request)]
    browser.cookies.pop("messages", None)  # they are shown once
    return seen


for line in sys.stdin:
    print(json.dumps(visit(**json.loads(line)), default=str), flush=True)
