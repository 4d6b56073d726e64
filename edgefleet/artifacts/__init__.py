# SPDX-License-Identifier: Apache-2.0
"""Files of the site: the object store behind uploads, bulk input, reports and update streams."""
