# SPDX-License-Identifier: Apache-2.0
"""The small form of `make soak`: some hundred jobs leave nothing behind in the agent's memory."""

from __future__ import annotations

from tests.model.soak_jobs import cpython, growth, micropython


def test_jobs_leave_nothing_in_memory_on_cpython() -> None:
    samples, _ = cpython(400, 25)
    assert growth(samples[4:]) < 10000, samples  # of about 190 jobs; the log's ring alone varies by half of it


def test_jobs_leave_nothing_in_memory_on_micropython() -> None:
    samples = micropython(400, 25)
    assert growth(samples[4:]) < 400, samples
