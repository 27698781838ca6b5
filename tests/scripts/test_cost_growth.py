"""The cost of growing work: the fit, the plot of a table, a point of it, and where they go."""

import csv
import os
import threading

import numpy as np
import pytest

from scripts import growth
from scripts.benchmarks import plot_growth


def rows(cost, peak=2.0):
    """A made-up table; `cost` of a point is the ms of its step."""
    for name, values in growth.VARIED.items():
        for value in values:
            point = growth.DEFAULT | {name: value}
            step = cost(point)
            image = step / point["batch"]
            yield {
                "varied": name,
                **point,
                "step_ms": step,
                "image_ms": image,
                "peak_gb": peak,
            }


def exact(point):
    pixels = point["batch"] * point["side"] ** 2 / 1e6
    return 40 + 100 * pixels * (1 + 0.5 * point["depth"]) + 0.001 * point["pictures"]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("batch", "a step: 41 ms + 2.46 ms/image"),
        ("side", "a step: 41 ms + 7.2 ms/1,000 px"),
        ("pictures", "a step: 158 ms + 1 ms/1,000 images"),
        ("depth", "a step: 120 ms + 39.3 ms/block"),
    ],
)
def test_the_fit_finds_what_the_times_are_made_of(name, formula):
    own = [row for row in rows(exact) if row["varied"] == name]
    times, found = growth.fit(name, own)
    np.testing.assert_allclose(times, [row["step_ms"] for row in own])
    assert found == formula


def test_the_plot_shows_every_point(monkeypatch):
    drawn = []
    real = plot_growth.growth
    monkeypatch.setattr(
        plot_growth, "growth", lambda panels: drawn.append(real(panels)) or drawn[0]
    )
    table = list(rows(exact))
    assert growth.draw(table).startswith(b"\x89PNG")
    times, memory = drawn[0].axes[:4], drawn[0].axes[4:]
    for axes, right, name in zip(times, memory, growth.VARIED, strict=True):
        own = [row for row in table if row["varied"] == name]
        for line in axes.lines:  # the fit is exact, so both lines are the same
            np.testing.assert_allclose(line.get_xdata(), growth.VARIED[name])
            np.testing.assert_allclose(line.get_ydata(), [row["image_ms"] for row in own])
        np.testing.assert_allclose(right.lines[0].get_ydata(), 2.0)
        assert "a step:" in axes.get_legend().get_texts()[1].get_text()


def call(monkeypatch, *words):
    def said(rounds, seconds):
        print("a point")
        return list(rows(exact))

    monkeypatch.setattr(growth, "measure_all", said)
    monkeypatch.setattr("sys.argv", ["growth", *map(str, words)])
    growth.main()


def test_a_dash_is_stdout(tmp_path, monkeypatch, capsys):
    """Which then has the table alone."""
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "--csv", "-", "--plot", "growth.png")
    table, said = capsys.readouterr()
    assert len(list(csv.DictReader(table.splitlines()))) == sum(map(len, growth.VARIED.values()))
    assert said == "a point\n"
    assert [path.name for path in tmp_path.iterdir()] == ["growth.png"]


def test_a_pipe_is_written_to_and_stays(tmp_path, monkeypatch, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    call(monkeypatch, "--csv", pipe, "--plot", "/dev/null")
    reader.join()
    assert read == [growth.to_csv(list(rows(exact)))]
    assert pipe.is_fifo()


@pytest.mark.slow
def test_a_point_is_measured():
    found = growth.measure(batch=8, side=32, pictures=20, depth=2, seconds=0.1)
    assert found["image_ms"] == found["step_ms"] / 8
    assert 0.1 < found["peak_gb"] < 10
