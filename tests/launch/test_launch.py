"""The launch files: right shell, and what they would start."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(
    [
        *(*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")),
        *(LAUNCH.parent / "benchmarks").glob("*.sh"),
    ]
)
ARGUMENTS = ["--config=configs/ade20k_base.py", "--workdir=runs/with space"]


def dry_run(script: str, **environment: str) -> tuple[list[str], list[str]]:
    """Return the settings and the command that a launch file prints."""
    output = subprocess.run(
        ["bash", LAUNCH / script, *ARGUMENTS],
        env={**os.environ, "DRY_RUN": "1", "HOME": "/home/me", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    *settings, command = output.splitlines()
    return settings, shlex.split(command)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_good_shell(script):
    subprocess.run(["bash", "-n", script], check=True)
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    found = subprocess.run(
        [shellcheck, "-x", "-P", LAUNCH.parent, script], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


def test_eight_gpus_are_one_process_of_the_main_job():
    settings, command = dry_run("gpu8.sh", JAX_COMPILATION_CACHE_DIR="/cache")
    assert command == ["./launch/train.sh", *ARGUMENTS]
    assert "JAX_COMPILATION_CACHE_DIR=/cache" in settings
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92" in settings


def test_a_dry_training_installs_and_prepares_nothing(tmp_path):
    """In a copy: what would be made would be made there."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for arguments, job in (
        ([], ["--config=configs/shapes_tiny.py"]),
        (ARGUMENTS, ARGUMENTS),
    ):
        output = subprocess.run(
            ["bash", tmp_path / "launch" / "train.sh", *arguments],
            env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
            | {"DRY_RUN": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = [shlex.split(line) for line in output.splitlines()]
        assert lines[0][0] == "install_into_venv"
        assert ([".venv/bin/python", "data/shapes/prepare.py"] in lines) == (
            not arguments
        )
        assert lines[-1] == [".venv/bin/python", "-m", "segnext_jax.main", *job]
    assert [path.name for path in tmp_path.iterdir()] == ["launch"]


def test_a_dry_manual_and_a_dry_trial_start_nothing(tmp_path):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for script, argument, last in (
        ("docs.sh", "serve", ".venv/bin/mkdocs serve --strict "),
        (
            "test.sh",
            "--robustness=5",
            ".venv/bin/python -m tests.robustness --inputs=5 ",
        ),
    ):
        output = subprocess.run(
            ["bash", tmp_path / "launch" / script, argument],
            env={**os.environ, "DRY_RUN": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert output.splitlines()[-1] == last
    assert not (tmp_path / ".venv").exists()


def test_slurm_starts_a_process_per_gpu():
    _, command = dry_run("slurm.sbatch")
    main = [".venv/bin/python", "-m", "segnext_jax.main", "--distributed", *ARGUMENTS]
    assert command == ["srun", "--kill-on-bad-exit=1", *main]
    options = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in (LAUNCH / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH") and "=" in line
    )
    # JAX gives each process of a node the GPU of its number there.
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"] == "TERM@120"


def test_a_tpu_pod_runs_the_same_command_on_each_host():
    place = {"TPU_NAME": "pod", "ZONE": "z", "REPOSITORY": "https://host/segnext_jax"}
    _, command = dry_run("tpu_pod.sh", **place)
    assert command[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"]
    assert command[6:8] == ["--zone=z", "--worker=all"]
    remote = command[8].removeprefix("--command=")
    assert shlex.split(remote)[-5:] == [
        "segnext_jax;",
        "./launch/train.sh",
        "--distributed",
        *ARGUMENTS,
    ]
    assert "git clone https://host/segnext_jax segnext_jax" in remote


def test_a_tpu_pod_must_be_named():
    stopped = subprocess.run(
        ["bash", LAUNCH / "tpu_pod.sh"],
        env={**os.environ, "DRY_RUN": "1"},
        capture_output=True,
        text=True,
    )
    assert stopped.returncode != 0
    assert "set TPU_NAME" in stopped.stderr


def test_the_jobset_starts_the_main_job_in_each_pod():
    documents = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    kinds = [document["kind"] for document in documents]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "JobSet"]
    account, role, binding, jobset = documents
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["command"][:4] == [
        "python",
        "-m",
        "segnext_jax.main",
        "--distributed",
    ]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    # JAX reads pods, their job and the service that names them.
    allowed = {r for rule in role["rules"] for r in rule["resources"]}
    assert allowed == {"pods", "services", "jobs"}


def test_an_array_of_predictions_has_a_shard_per_task():
    place = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    _, command = dry_run("predict.sbatch", **place)
    assert command == [
        *(".venv/bin/python", "-m", "segnext_jax", "predict", "--existing=skip"),
        *("--shard=3/16", *ARGUMENTS),
    ]


def test_pods_of_a_prediction_have_a_shard_each(tmp_path):
    (jobset,) = yaml.safe_load_all((LAUNCH / "predict.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    settings = {one["name"]: one["value"] for one in container["env"]}
    assert settings == {"SHARDS": str(spec["completions"])}
    # Some inputs cannot be read: the pod has done its work. An error: it has not.
    for code, expected in ((0, 0), (3, 0), (1, 1)):
        program = tmp_path / "segnext-jax"
        program.write_text(f"#!/bin/sh\necho $@\nexit {code}\n")
        program.chmod(0o755)
        done = subprocess.run(
            container["command"],
            env={
                **settings,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "JOB_COMPLETION_INDEX": "5",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected
        assert done.stdout.startswith("predict --existing=skip --shard=5/8 --check")
