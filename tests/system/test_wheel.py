"""What is tracked is what is installed and tested: the wheel, the packages of pyproject.toml, the test files."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("pipeline", "model", "tools")
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout, so nothing is tracked")


def tracked(*patterns: str) -> list[str]:
    """Tracked files that are there, from the root, in order."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())


def test_the_packages_of_the_project_are_the_folders_of_its_modules():
    text = (ROOT / "pyproject.toml").read_text()  # Python 3.10 has no tomllib
    (block,) = re.findall(r"^packages = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    folders = {Path(name).parent for name in tracked(*PRODUCT) if name.endswith(".py")}
    assert sorted(re.findall(r'"(.+)"', block)) == sorted(
        f"alexnet_dali.{str(folder).replace('/', '.')}" for folder in folders
    )


@pytest.mark.slow
def test_the_wheel_holds_the_tracked_files_of_the_product(tmp_path):
    """And the extensions that are made of its C files, where there is a compiler."""
    for name in tracked(*PRODUCT, "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, tmp_path, tmp_path / "tree"], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    made = {name for name in held if name.endswith((".so", ".pyd"))}
    sources = {f"alexnet_dali/{name}" for name in tracked(*PRODUCT) if name.endswith(".c")}
    assert held - made == {f"alexnet_dali/{name}" for name in tracked(*PRODUCT)}
    assert {f"{name.partition('.')[0]}.c" for name in made} in ([sources] if shutil.which("cc") else [sources, set()])


@pytest.mark.slow
def test_every_tracked_test_file_is_collected():
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout
    collected = {line.split("::")[0] for line in listed.splitlines() if "::" in line}
    collected |= {line.split(": ")[0] for line in listed.splitlines() if re.fullmatch(r"tests/\S+\.py: \d+", line)}
    files = [name for name in tracked("tests") if Path(name).name.startswith("test_") and name.endswith(".py")]
    assert collected == set(files)
