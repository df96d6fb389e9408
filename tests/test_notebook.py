"""The notebook runs on a real run, without Jupyter: its code cells, one after the other, as a session."""

import json
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs/look_inside.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that `plt.show` showed."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = []

    def show():
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            figure.canvas.draw()
            shown.append(figure)
            pyplot.close(figure)

    monkeypatch.setattr(pyplot, "show", show)
    return shown


def test_every_cell_runs_and_every_plot_has_content(finished, tmp_path, monkeypatch, figures, capsys):
    (tmp_path / "runs").symlink_to(finished.store)
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, cell in enumerate(CODE):
        exec(compile(cell.replace('"demo"', '"tiny"'), f"cell {number}", "exec"), names)
    assert len(figures) == sum("plt.show()" in cell for cell in CODE)
    assert all(axes.has_data() for figure in figures for axes in figure.axes)
    assert "nats per held-out frame" in capsys.readouterr().out


def test_it_is_stored_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert not any(cell["outputs"] or cell["execution_count"] for cell in NOTEBOOK["cells"] if "outputs" in cell)
