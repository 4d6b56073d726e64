# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F821  include and package are given by MicroPython's tools/manifestfile.py, which runs this in its folder
# For those who build their own firmware: the agent frozen into flash, where it costs no heap for its code.
#   make BOARD=ESP32_GENERIC FROZEN_MANIFEST=<this file>
# `files` is edgeagent/package.json's list: nothing that only runs on hosts gets on a board. Not linked (docs/adr/0006):
# frozen modules share their names anyway.
import json

include("$(PORT_DIR)/boards/manifest.py")

with open("../../edgeagent/package.json") as f:
    listed = [source for _, source in json.load(f)["urls"]]

package("edgeagent", files=listed, base_path="../..", opt=2)
