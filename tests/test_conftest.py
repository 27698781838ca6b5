"""Sessions of the tests do not fail by what other sessions do."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# As when another session is removing the same folder.
NOT_EMPTY = """
import os
removed = os.rmdir
def rmdir(path, **options):
    if "garbage-" in str(path):
        raise OSError(39, "Directory not empty", str(path))
    removed(path, **options)
os.rmdir = rmdir
"""


def test_old_folders_that_cannot_be_removed_are_no_failure(tmp_path: Path):
    """Pytest warns of them when a session ends, and warnings are errors here."""
    (tmp_path / "not_empty.py").write_text(NOT_EMPTY)
    (tmp_path / "test_one.py").write_text("def test_one(tmp_path):\n    pass\n")
    folder = f"pytest-of-{getpass.getuser()}"
    (tmp_path / folder / "garbage-1").mkdir(parents=True)
    (tmp_path / folder).chmod(0o700)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "-p", "not_empty", "-p", "no:cacheprovider"]
    variables = {"PYTEST_DEBUG_TEMPROOT": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "test_one.py"],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / folder).glob("garbage-*"))
