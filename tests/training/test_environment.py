"""The commit of a run is that of our own files, or none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgear.training.runs import environment

SOURCE = Path(environment.__file__)
WHO = ("-c", "user.email=a@b", "-c", "user.name=n")


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", folder, *WHO, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git checkout in which our file lies, as `lib/environment.py`; it is asked there."""
    lib = tmp_path / "project" / "lib"
    lib.mkdir(parents=True)
    shutil.copy(SOURCE, lib)
    git(lib.parent, "init", "-q")
    git(lib.parent, "commit", "-q", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(environment, "__file__", str(lib / SOURCE.name))
    return lib.parent


def test_a_project_that_does_not_track_our_files_is_not_ours(project):
    """Ignored or not, and where the project tracks files beside them."""
    assert environment._commit() is None
    (project / ".gitignore").write_text("lib/environment.py\n")
    (project / "lib/theirs.py").touch()
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "more")
    assert environment._commit() is None


def test_a_checkout_that_tracks_our_files_is_named_and_marked_when_they_differ(project):
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "ours")
    head = git(project, "rev-parse", "HEAD")
    assert environment._commit() == head
    (project / "lib/environment.py").write_text("edited")
    assert environment._commit() == head + "+"


def test_a_link_to_a_checkout_is_that_checkout(project, tmp_path, monkeypatch):
    """As an editable install, or a folder of packages that are links, has it."""
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "ours")
    (tmp_path / "site").symlink_to(project / "lib")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site" / SOURCE.name))
    assert environment._commit() == git(project, "rev-parse", "HEAD")


def test_a_repository_that_the_environment_names_is_not_asked(project, tmp_path, monkeypatch):
    """Git hooks set GIT_DIR, and it names any repository."""
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "ours")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    head = git(project, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert environment._commit() == head


def test_without_a_repository_or_git_there_is_none(project, monkeypatch):
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "ours")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert environment._commit() is None
    monkeypatch.undo()
    shutil.rmtree(project / ".git")
    monkeypatch.setattr(environment, "__file__", str(project / "lib" / SOURCE.name))
    assert environment._commit() is None
