"""What Nova does to open an encrypted volume, up to the passphrase: python3 ask-castellan.py KEY_ID.

The environment is that of an openrc, with OS_TOKEN and OS_PROJECT_ID. The key manager is that of the catalog. Prints the passphrase.
"""

import binascii
import os
import sys

from castellan import key_manager
from castellan.common.credentials import keystone_token
from oslo_config import cfg

conf = cfg.ConfigOpts()
conf([], default_config_files=[])
manager = key_manager.API(conf)
conf.set_override("auth_endpoint", os.environ["OS_AUTH_URL"], group="barbican")
context = keystone_token.KeystoneToken(
    token=os.environ["OS_TOKEN"], auth_url=os.environ["OS_AUTH_URL"], project_id=os.environ["OS_PROJECT_ID"]
)
print(binascii.hexlify(manager.get(context, sys.argv[1]).get_encoded()).decode())
