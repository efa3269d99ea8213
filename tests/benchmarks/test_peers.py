"""The comparison with other engines, as far as it needs none of them: our own program, the table, the chart."""

from __future__ import annotations

import os
import select
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.chart import Bar, draw
from benchmarks.peers import __main__ as peers
from benchmarks.peers.environments import PEERS, PROGRAMS, MissingPeerError, Peer, make


def test_every_peer_has_a_program_and_counts_for_each_workload() -> None:
    assert {peer.program for peer in PEERS} | {PROGRAMS / "measured.py", PROGRAMS / "wfengine_program.py"} == set(
        PROGRAMS.glob("*.py")
    )
    for peer in PEERS:
        compile(peer.program.read_text(encoding="utf-8"), str(peer.program), "exec")
        assert set(peer.counts) == set(peers.OURS)
        assert all("==" in package or "<" in package for package in peer.packages)


def test_our_program_is_measured_in_both_durabilities(tmp_path: Path) -> None:
    for system in peers._ours():
        for workload in system.counts:
            folder = tmp_path / system.name / workload
            folder.mkdir(parents=True)
            assert peers._seconds(system, workload, 5, folder) > 0
            assert (folder / "journal.db").exists()


def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, pathlib, subprocess, sys\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "pathlib.Path('left').write_text(str(left.pid))\n"
        "print(json.dumps({'seconds': 1.0}))\n"
    )
    system = peers.System("leaving", program, Path(sys.executable), {}, {"chain": 1}, "sys", "nothing")
    assert peers._seconds(system, "chain", 1, tmp_path) == 1.0
    try:
        left = os.pidfd_open(int((tmp_path / "left").read_text()))
    except ProcessLookupError:
        return  # it is gone already
    assert select.select([left], [], [], 60)[0] == [left], "it lives on"
    os.close(left)


def test_a_program_that_fails_is_said_with_what_it_said_last(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no such engine')")
    system = peers.System("broken", program, Path(sys.executable), {}, {"chain": 1}, "sys", "nothing")
    with pytest.raises(RuntimeError, match="chain: exit code 1: no such engine"):
        peers._seconds(system, "chain", 1, tmp_path)


def test_a_peer_whose_python_is_not_there_is_missing() -> None:
    peer = Peer("none", ("none==1",), "none", "", {}, python="2.99")
    with pytest.raises(MissingPeerError, match=r"Python 2\.99 is not installed"):
        make(peer)


def test_the_bars_of_a_chart_are_as_long_as_the_logarithms_of_their_values() -> None:
    svg = ElementTree.fromstring(draw("A & B", [Bar("ours <1>", 20.0, "kill -9", "ours"), Bar("theirs", 2000.0, "", "peer")]))
    namespace = "{http://www.w3.org/2000/svg}"
    short, long = (float(bar.attrib["width"]) for bar in svg.iter(f"{namespace}rect"))
    lines = [float(line.attrib["x1"]) for line in svg.iter(f"{namespace}line")]
    assert long - short == pytest.approx(2 * (lines[1] - lines[0]), abs=0.2)
    assert "ours <1>" in [text.text for text in svg.iter(f"{namespace}text")]
