"""RAPL: packages only, wraparound, and reasons where nothing can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sims.energy.measured import RaplMeter


def domain(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path / "energy_uj"


def test_packages_are_added_and_each_wraps_at_its_own_range(tmp_path):
    first = domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 100_000, 5_000_000)
    with (meter := RaplMeter(tmp_path)):
        first.write_text("150000")  # 100,000 to the end of the range, then 150,000
        second.write_text("600000")
    joules, source = meter.reading()
    assert joules == pytest.approx(0.25 + 0.5)
    assert source == "RAPL, all packages, idle included"
    assert meter.available() == (True, "2 processor packages can be measured")


def test_parts_of_a_package_and_the_whole_platform_are_not_counted_twice(tmp_path):
    package = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    counters = [
        package,
        domain(tmp_path, "intel-rapl:0:0", "core", 0),
        domain(tmp_path, "intel-rapl:0:1", "dram", 0),
        domain(tmp_path, "intel-rapl:1", "psys", 0),
    ]
    with (meter := RaplMeter(tmp_path)):
        for counter in counters:
            counter.write_text("300000")
    assert meter.reading()[0] == pytest.approx(0.3)


def test_a_block_that_fails_is_still_measured(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = RaplMeter(tmp_path)
    with pytest.raises(KeyError), meter:
        counter.write_text("200000")
        raise KeyError
    assert meter.reading()[0] == pytest.approx(0.2)


def test_no_counters_and_unreadable_counters_have_their_reasons(tmp_path):
    with (absent := RaplMeter(tmp_path / "none")):
        pass
    assert absent.reading() == (None, None)
    assert absent.available() == (False, "this machine shows no RAPL counters; energy is modelled and says so")
    domain(tmp_path, "intel-rapl:0", "package-0", 0).unlink()  # stands for a counter only the administrator can open
    with (locked := RaplMeter(tmp_path)):
        pass
    assert locked.reading() == (None, None)
    ok, reason = locked.available()
    assert not ok and "only the administrator" in reason
