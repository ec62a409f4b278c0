"""What is installed holds what the product reads of itself."""

import subprocess
from pathlib import Path

import pytest
from setuptools import Distribution

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "scoring", "onnx_models", "deploy")
FOR_READERS = {"deploy/Dockerfile", "deploy/k8s/secrets.yaml.example"}
"""With the pages of `deploy/`, what people take from the repository; nothing of the product reads it."""


def packed() -> set[str]:
    build = Distribution({"script_name": "setup.py"})
    build.parse_config_files()
    build.include_package_data = False  # else it also counts what a build before has listed, which a clean one lacks
    command = build.get_command_obj("build_py")
    command.ensure_finalized()
    modules = {path for _, _, path in command.find_all_modules()}
    return modules | {f"{folder}/{name}" for _, folder, _, names in command.data_files for name in names}


def test_a_wheel_holds_each_file_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git, which is asked for the product's files")
    monkeypatch.chdir(ROOT)
    listed = subprocess.run(["git", "ls-files", *PACKAGES], capture_output=True, text=True, check=True).stdout.split()
    pages = {path for path in listed if path.startswith("deploy/") and path.endswith(".md")}
    there = {path for path in listed if (ROOT / path).exists()}
    left_out = there - {Path(path).as_posix() for path in packed()}
    assert left_out == FOR_READERS | pages
