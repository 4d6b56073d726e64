# SPDX-License-Identifier: Apache-2.0
"""The operator's commands. Each module adds its own to the parser; `run` takes the parsed arguments and returns the
exit code: 0 done, 1 the service or the job says no, 2 the input is wrong.
"""
