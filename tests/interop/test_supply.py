"""The parts of a release: each is named by its hash, and the job that builds cannot publish."""

import json
import re

import pytest
import yaml
from conftest import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOBS = WORKFLOW["jobs"]
MAKEFILE = (ROOT / "Makefile").read_text()
REQUIREMENTS = [
    *("tests/build.txt", "tests/requirements.txt", "tests/terraform.txt", "tests/agents_playground.txt"),
    "benches/peers/python/requirements.txt",
]


def steps(job):
    return JOBS[job]["steps"]


def test_only_the_release_job_may_write():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    wide = {name: job["permissions"] for name, job in JOBS.items() if "permissions" in job}
    assert wide == {"release": {"contents": "write", "id-token": "write", "attestations": "write"}}


def test_release_job_runs_no_repository_code():
    uses = [step["uses"].split("@")[0] for step in steps("release") if "uses" in step]
    assert uses == ["actions/download-artifact", "actions/attest-build-provenance"]
    runs = " ".join(step["run"] for step in steps("release") if "run" in step)
    assert not re.search(r"make|cargo|pip|python|rustup|\./", runs), runs
    assert JOBS["release"]["needs"] == "build" and "gh release create" in runs and "sha256sum --check" in runs
    assert JOBS["build"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert not any("token" in str(step) for step in steps("build"))


@pytest.mark.parametrize("job", JOBS)
def test_every_action_is_pinned_by_its_hash_and_keeps_no_credentials(job):
    for step in steps(job):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False, step


@pytest.mark.parametrize("path", REQUIREMENTS)
def test_every_package_is_pinned_by_version_and_hash(path):
    packages = re.sub(r" \\\n\s+", " ", (ROOT / path).read_text()).splitlines()
    assert packages
    for package in packages:
        assert re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", package), package[:60]


def test_packages_are_installed_only_by_hash():
    pip = re.search(r"^PIP = (.*)$", MAKEFILE, re.M).group(1)
    assert "--require-hashes" in pip and "--no-deps" in pip
    installs = [line for line in MAKEFILE.splitlines() if "--requirement" in line]
    assert len(installs) == 6
    for line in installs:
        assert "$(PIP)" in line and ("--only-binary :all:" in line or "--no-build-isolation" in line), line
    assert "-m pip install" not in MAKEFILE.replace(f"PIP = {pip}", "")


def test_every_npm_package_is_pinned_by_version_and_hash():
    folder = ROOT / "tests" / "interop" / "agents_playground"
    wanted = json.loads((folder / "package.json").read_text())["devDependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["devDependencies"] == wanted
    assert {path.removeprefix("node_modules/"): package["version"] for path, package in packages.items()} == wanted
    for path, package in packages.items():
        assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"]), path
    (install,) = [line for line in MAKEFILE.splitlines() if "$(NPM)" in line]
    assert "$(NPM) ci --ignore-scripts" in install, install
