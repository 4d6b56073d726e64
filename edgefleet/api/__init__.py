# SPDX-License-Identifier: Apache-2.0
"""The AWS-compatible HTTP front: what `aws iot …`, boto3 and other official clients speak to."""
