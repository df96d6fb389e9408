"""`wm` imports nothing from the current directory."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("wm")


@pytest.fixture
def trap(tmp_path):
    """A directory with a file of the name of every module that the standard library, or a dependency, has."""
    for name in {*sys.stdlib_module_names, "numpy", "pydantic", "click", "cma", "worldmodels", "wm"}:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported from here')\n")
    (tmp_path / "matplotlibrc").write_text("font.size: 77\n")
    return tmp_path


def test_a_run_imports_nothing_from_there(wm, trap):
    command = [SCRIPT, "run", "rollouts", "--config", wm.toml]
    done = subprocess.run(command, cwd=trap, env=wm.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_processes_of_a_pool_import_nothing_from_there(trap, tmp_path_factory):
    """`wm evaluate` has one."""
    script = tmp_path_factory.mktemp("bin") / "script"
    script.write_text(
        "import multiprocessing, wm.main\n"
        "if __name__ == '__main__':\n"
        "    wm.main.prepare()\n"
        "    print(multiprocessing.get_context('spawn').Pool(1).apply_async(abs, (-3,)).get(timeout=30))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=trap, capture_output=True, text=True, timeout=60)
    assert done.stdout == "3\n", done.stderr


def test_pictures_do_not_look_as_a_file_there_says(trap):
    code = "from worldmodels.reports import figures; print(figures.plt.rcParams['font.size'])"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=trap, capture_output=True, text=True)
    assert done.stdout == "10.0\n", done.stderr
