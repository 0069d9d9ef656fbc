"""Progress: plain lines on stderr away from a terminal, a bar on one, never on stdout."""

from __future__ import annotations

import re

import pytest

from demoalign import progress


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_plain_lines_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.meter("training", 4) as shown:
        shown.advance()
        shown.advance(3, note="loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"training: 1/4 \(\d+\.\d/s, \d+ s left\)", lines[0])
    assert re.fullmatch(r"training: 4/4 \(\d+\.\d/s, 0 s left\) loss 0\.5", lines[1])
    assert shown.done == 4


def test_lines_come_once_an_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr("demoalign.progress.time.monotonic", lambda: clock[0])
    with progress.meter("sampling", 100) as shown:
        for _ in range(50):
            clock[0] += 1.0
            shown.advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "sampling: 20/100 (2.0/s, 40 s left)",
        "sampling: 40/100 (2.0/s, 30 s left)",
        "sampling: 60/100 (2.0/s, 20 s left)",
        "sampling: 80/100 (2.0/s, 10 s left)",
        "sampling: 100/100 (2.0/s, 0 s left)",
    ]


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.meter("scores", 2) as shown:
        shown.advance(2)
    assert capsys.readouterr() == ("", "")


def test_more_than_the_total_leaves_no_negative_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.meter("scores", 2) as shown:
        shown.advance(3)
    assert ", 0 s left)" in capsys.readouterr().err


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.meter("training", 4) as shown:
        shown.advance(1, note="loss 0.7")
        shown.advance(3, note="loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert shown.done == 4
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert "training" in text
    assert "4/4" in text
    assert "loss 0.5" in text


def test_a_failure_inside_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt), progress.meter("training", 4):
        raise KeyboardInterrupt
