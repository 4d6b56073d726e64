# SPDX-License-Identifier: Apache-2.0
# Runs first on a board and is never updated. If it raised, main.py would not run: nothing here can fail.
import sys

if "/lib" not in sys.path:
    sys.path.append("/lib")
if "" in sys.path:
    sys.path.remove("")  # json.py or edgeagent.py that an application leaves in / would be loaded instead
