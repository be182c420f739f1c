"""The benchmark of uploads, small: 64 MiB both ways with ten cuts each, through a server of its own."""

from pathlib import Path

import pytest

from evals.benchmarks import upload


@pytest.mark.slow
async def test_what_comes_back_through_cut_connections_is_what_was_sent(tmp_path: Path) -> None:
    found = await upload.measure(tmp_path, 64 << 20, 10)
    assert found.equal
    assert (found.cuts_up, found.cuts_down) == (10, 10)
    assert found.peak_memory < 200 << 20
