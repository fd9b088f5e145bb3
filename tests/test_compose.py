"""The container files say what they mean: services, volumes, GPUs, and nothing that is not in the tree.

There is no docker here: the files are read, not run.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]


def sources() -> list[str]:
    """List what the Dockerfile copies from the tree."""
    return [source for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]


def test_two_services_of_one_image_that_is_built_here():
    assert set(SERVICES) == {"prep", "train"}
    for service in SERVICES.values():
        assert (service["build"], service["image"], service["pull_policy"]) == (".", "alexnet-dali", "build")


@pytest.mark.parametrize("name", ["prep", "train"])
def test_photos_are_read_only_and_shards_and_runs_outlive_the_container(name):
    volumes = {volume["target"]: volume for volume in SERVICES[name]["volumes"]}
    assert {target: volume["source"] for target, volume in volumes.items()} == {
        "/data": "${DATA:-./sample}",
        "/out": "${OUT:-./out}",
        "/runs": "${RUNS:-./runs}",
    }
    assert [target for target, volume in volumes.items() if volume.get("read_only")] == ["/data"]
    # Made by docker, a folder would belong to root, and the services are not root.
    assert all(volume["type"] == "bind" and not volume["bind"]["create_host_path"] for volume in volumes.values())


@pytest.mark.parametrize("name", ["prep", "train"])
def test_processes_share_memory_and_are_not_root(name):
    assert SERVICES[name]["ipc"] == "host" and SERVICES[name]["init"] is True
    assert SERVICES[name]["user"] == "${UID:-1000}:${GID:-1000}"


def test_training_waits_for_the_shards_and_gets_every_gpu():
    assert SERVICES["train"]["depends_on"] == {"prep": {"condition": "service_completed_successfully"}}
    reserved = SERVICES["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "deploy" not in SERVICES["prep"]  # shards are built on machines without a GPU as well


def test_commands_are_console_scripts_of_the_project():
    pyproject = (ROOT / "pyproject.toml").read_text()  # Python 3.10 has no tomllib
    [table] = re.findall(r"^\[project\.scripts\]\n(.*?)(?=^\[|\Z)", pyproject, re.MULTILINE | re.DOTALL)
    scripts = set(re.findall(r"^([\w-]+) *=", table, re.MULTILINE))
    [default] = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    named = {name: set(re.findall(r"alexnet-[a-z]+(?= )", each["command"])) for name, each in SERVICES.items()}
    assert named == {"prep": {"alexnet-prep"}, "train": {"alexnet-train"}} and '"alexnet-prep"' in default
    assert set.union(*named.values()) <= scripts


def test_the_steps_work_on_the_same_folders():
    assert SERVICES["prep"]["command"] == (
        'sh -c "alexnet-prep build-lmdb /data --out /out && alexnet-prep pca-stats --shards /out"'
    )
    assert SERVICES["train"]["command"] == (
        'sh -c "exec alexnet-train --shards /out --run /runs/alexnet '
        '$$(test ! -e /runs/alexnet/last.pt || echo --resume)"'
    )


@pytest.mark.parametrize("source", sources())
def test_what_the_dockerfile_copies_is_there_and_not_ignored(source):
    assert (ROOT / source).exists()
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules and rules.index(f"!{source}") > rules.index("*")


def test_every_package_is_copied():
    text = (ROOT / "pyproject.toml").read_text()
    folders = re.findall(r'"alexnet_dali\.\w+" = "(\w+)"', text)
    assert folders and set(folders) | {"pyproject.toml"} <= set(sources())


def test_the_image_is_public_and_its_user_unprivileged():
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.12-slim"]
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["alexnet"]
    # Without "video" nvJPEG cannot load libnvcuvid.so.1, its way to the hardware decoder.
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in DOCKERFILE


def test_the_layer_of_dependencies_needs_no_code():
    """It is built before the packages are copied: it installs what pyproject.toml lists, not the project."""
    before, after = DOCKERFILE.split("COPY pipeline pipeline")
    assert "--requirement" in before and "pip install ." not in before and "pip install --no-deps ." in after
    (code,) = re.findall(r'RUN python -c "(.+)" \\', before)
    if sys.version_info >= (3, 11):  # tomllib, as in the image
        command = [sys.executable, "-c", code]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"click", "torch", "lmdb"} <= {re.split(r"[^\w-]", line)[0] for line in listed.splitlines()}
