"""What a Jetson needs: wheels of every dependency, and a daemon that runs on its processor (here by qemu)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.processes import ROOT, TRAINER, mesh
from tests.e2e.arm64 import KEYRING, Arm64, unpack

pytestmark = pytest.mark.e2e
PATIENCE = 120.0
JETPACK_6, JETPACK_7 = "3.10", "3.12"  # Python of Ubuntu 22.04 and 24.04


@pytest.mark.parametrize("python", [JETPACK_6, JETPACK_7])
@pytest.mark.parametrize(
    ("extras", "constraints"),
    [
        (("gguf", "otel", "privacy", "quantized"), (ROOT / "constraints.txt").read_text()),
        (("gguf", "otel", "quantized"), "torch==2.5.0"),  # as old as NVIDIA's first for JetPack 6.1; Opacus wants 2.6
    ],
    ids=["tested versions", "an old torch"],
)
def test_every_dependency_has_a_wheel(python: str, extras: tuple[str, ...], constraints: str, tmp_path: Path) -> None:
    given = tmp_path / "constraints.txt"
    given.write_text(constraints + "\n")
    where = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", python, "--only-binary", ":all:"]
    wanted = [word for extra in extras for word in ("--extra", extra)]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "-q", *where, *wanted, "-c", given, ROOT / "pyproject.toml"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "\ntorch==" in done.stdout


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Arm64:
    if shutil.which("qemu-aarch64-static") is None or not KEYRING.exists() or shutil.which("apt-get") is None:
        pytest.skip("it needs Debian's apt-get and qemu-aarch64-static (apt install qemu-user-static)")
    return unpack(tmp_path_factory.mktemp("arm64"))


def test_a_daemon_runs_on_aarch64_and_mixes_with_one_on_this_processor(arm64: Arm64) -> None:
    said = arm64.python("-c", "import platform, decaf_node.daemon.main as m; print(platform.machine(), m.__file__)")
    assert said == f"aarch64 {ROOT}/decaf_node/daemon/main.py\n"
    with mesh() as make:
        here = make("here", script={"value": 1.0, "seconds": 0.5}).start()
        there = make("there", here, training={"trainer": "external"}, script={"value": 3.0, "seconds": 0.5})
        there.within, there.environ = arm64.runner, arm64.environ
        there.start()
        there.until(lambda status: status.address != "", PATIENCE)
        trainer = subprocess.Popen(
            [*arm64.runner, sys.executable, str(TRAINER), "--socket", str(there.runtime / "trainer.sock")],
            env={**os.environ, **arm64.environ},
            stdout=subprocess.DEVNULL,
        )
        try:
            status = there.until(lambda status: status.mixes > 2 and status.saved_round > 0, PATIENCE)
            assert status.received_bytes > 0
            assert status.machine is not None
            assert status.machine.memory_total_bytes
            with here.client() as client:
                assert [(peer.name, peer.state) for peer in client.peers()] == [("there", "alive")]
            here.until(lambda status: status.mixes > 2)
            there.signal(signal.SIGTERM)
            assert there.wait() == 0
            assert trainer.wait(PATIENCE) == 0
        finally:
            trainer.kill()
            trainer.wait()
        assert "heavy modules: []" in there.log()
