# SPDX-License-Identifier: Apache-2.0
import firmware  # noqa: F401  runs the board; a script, because `-i` gives the REPL only after one
