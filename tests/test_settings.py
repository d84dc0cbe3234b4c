from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from decaf_node.errors import BadSettings
from decaf_node.places import SOCKET_PATH_LIMIT_BYTES, find_places
from decaf_node.settings import MixingSection, Settings, load_settings, parse_settings
from decaf_node.snapshot import Wire

NEEDED = '[model]\npath = "model"\n[data]\ntrain = ["a.jsonl", "/data/*.jsonl"]\n'


def load(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    path = folder / "config.toml"
    path.write_text(text)
    return load_settings(path, environ or {})


def refusal(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        load(folder, text, environ)
    assert caught.value.exit_code == 78
    return caught.value


def test_the_model_and_the_data_are_all_that_must_be_set(tmp_path: Path) -> None:
    settings = load(tmp_path, NEEDED)
    assert settings.round.algorithm == "decaf"
    assert settings.listen.address == "127.0.0.1"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, NEEDED + 'evaluation = ["held-out.csv"]')
    assert settings.model.path == tmp_path / "model"
    assert settings.data.train == (tmp_path / "a.jsonl", Path("/data/*.jsonl"))
    assert settings.data.evaluation == (tmp_path / "held-out.csv",)


def test_every_wire_format_can_be_chosen() -> None:
    assert get_args(MixingSection.model_fields["wire"].annotation) == get_args(Wire)


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load(tmp_path, NEEDED)
    with pytest.raises(ValidationError, match="frozen"):
        settings.round.steps = 3  # type: ignore[misc]


def test_settings_survive_the_way_to_the_trainer(tmp_path: Path) -> None:
    settings = load(tmp_path, NEEDED + "[lora]\nr = 16\n[training.arguments]\nlearning_rate = 1e-3")
    assert parse_settings(settings.model_dump(mode="json"), "link") == settings


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (NEEDED + "[rond]\nsteps = 3", "settings.unknown-key", "unknown key rond"),
        (NEEDED + "[round]\nstep = 3", "settings.unknown-key", "unknown key round.step"),
        (NEEDED + "[round]\nsteps = -3", "settings.bad-value", "round.steps does not fit"),
        (NEEDED + '[round]\nalgorithm = "fedavg"', "settings.bad-value", "round.algorithm"),
        (NEEDED + "[round]\nwait_floor = 200", "settings.bad-value", "wait_floor is above wait_ceiling"),
        (NEEDED + "[round]\nseconds = nan", "settings.bad-value", "round.seconds"),
        (
            NEEDED + '[round]\nalgorithm = "dlora-fa"\n[mixing]\nwire = "int8"',
            "settings.bad-value",
            "one section does not fit another: round.algorithm dlora-fa",
        ),
        (
            NEEDED + '[round]\nalgorithm = "dlora"\n[mixing]\nwire = "compact"',
            "settings.bad-value",
            "dlora mixes factors as they are, and compact splits their product anew",
        ),
        (
            NEEDED + '[round]\nalgorithm = "dlora-fa"\n[mixing]\nwire = "compact"',
            "settings.bad-value",
            "dlora-fa mixes factors as they are",
        ),
        (NEEDED + "[listen]\nport = 65536", "settings.bad-value", "listen.port"),
        (NEEDED + "[lora]\nr = 0", "settings.bad-value", "a rank is a whole number from 1"),
        (NEEDED + "[lora]\nr = 2.0", "settings.bad-value", "a rank is a whole number from 1"),
        (NEEDED + "[lora]\nr = true", "settings.bad-value", "a rank is a whole number from 1"),
        (NEEDED + '[mesh]\nname = ""', "settings.bad-value", "mesh.name"),
        (NEEDED.replace('["a.jsonl", "/data/*.jsonl"]', "[]"), "settings.bad-value", "data.train"),
        ('[model]\npath = "model"', "settings.bad-value", "data does not fit: Field required"),
        ("model = 3", "settings.bad-value", "model"),
        ("[model", "settings.not-toml", "not valid TOML"),
        (f"[model]\npath = {'9' * 5000}", "settings.not-toml", "not valid TOML"),
        (f"[model]\npath = {'[' * 100_000}", "settings.not-toml", "not valid TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, reason: str, words: str) -> None:
    error = refusal(tmp_path, text)
    assert error.reason == reason
    assert words in error.message
    assert "config.toml" in error.message
    assert "\n" not in error.message or reason == "settings.not-toml"


def test_missing_settings_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"no settings at .*--config.*\[settings.missing\]"):
        load_settings(tmp_path / "config.toml", {})


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"\[settings.unreadable\]"):
        load_settings(tmp_path, {})
    (tmp_path / "latin").write_bytes("# café".encode("latin-1"))
    with pytest.raises(BadSettings, match=r"\[settings.unreadable\]"):
        load_settings(tmp_path / "latin", {})


def test_the_environment_comes_on_top(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        NEEDED + "[round]\nsteps = 3\n",
        {
            "DECAF_NODE__ROUND__STEPS": "5",
            "DECAF_NODE__ROUND__OVERLAP": "false",
            "DECAF_NODE__MESH__NAME": "lab",
            "DECAF_NODE__MESH__PEERS": '["10.0.0.1:7433"]',
            "DECAF_NODE__TRAINING__ARGUMENTS__LEARNING_RATE": "1e-3",
            "DECAF_NODE__MODEL__PATH": "/models/other",
            "DECAF_NODE_ELSE": "not ours",
        },
    )
    assert (settings.round.steps, settings.round.overlap) == (5, False)
    assert (settings.mesh.name, settings.mesh.peers) == ("lab", ("10.0.0.1:7433",))
    assert settings.training.arguments == {"learning_rate": 1e-3}
    assert settings.model.path == Path("/models/other")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DECAF_NODE__ROUND__STEPS", "many", "round.steps"),
        ("DECAF_NODE__ROUND__STEP", "1", "unknown key round.step"),
        ("DECAF_NODE__STEPS", "1", "unknown key steps"),
        ("DECAF_NODE__ROUND", "1", "round does not fit"),
        ("DECAF_NODE__ROUND__STEPS__MORE", "1", "DECAF_NODE__ROUND__STEPS__MORE is set, but steps is not a section"),
        ("DECAF_NODE__", "1", "unknown key"),
        ("DECAF_NODE__ROUND__STEPS", "[" * 100_000, "round.steps"),
        ("DECAF_NODE__ROUND__STEPS", "9" * 5000, "round.steps"),
    ],
)
def test_an_environment_that_does_not_fit_is_named(tmp_path: Path, name: str, value: str, words: str) -> None:
    assert words in refusal(tmp_path, NEEDED + "[round]\nsteps = 3\n", {name: value}).message


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_fuzz_any_text_gives_settings_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadSettings):  # the model is never in it
        load_settings(path, {})


def test_places_are_the_given_ones(tmp_path: Path) -> None:
    places = find_places({"HOME": "/nowhere"}, tmp_path / "c", tmp_path / "s", tmp_path / "r")
    assert (places.config, places.state, places.runtime) == (tmp_path / "c", tmp_path / "s", tmp_path / "r")
    assert places.control_socket.parent == places.trainer_socket.parent == places.spool.parent == tmp_path / "r"


def test_places_under_systemd() -> None:
    places = find_places(
        {"STATE_DIRECTORY": "/var/lib/decaf-node", "RUNTIME_DIRECTORY": "/run/decaf-node", "HOME": "/x"}
    )
    assert (places.state, places.runtime) == (Path("/var/lib/decaf-node"), Path("/run/decaf-node"))


def test_places_of_a_user(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1000"}
    config = tmp_path / ".config/decaf-node/config.toml"
    config.parent.mkdir(parents=True)
    config.touch()
    places = find_places(environ)
    assert places.config == config
    assert places.state == tmp_path / ".local/state/decaf-node"
    assert places.runtime == Path("/run/user/1000/decaf-node")


def test_the_xdg_folders_come_before_home(tmp_path: Path) -> None:
    environ = {"HOME": "/x", "XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}
    (tmp_path / "c/decaf-node").mkdir(parents=True)
    (tmp_path / "c/decaf-node/config.toml").touch()
    places = find_places(environ)
    assert places.config == tmp_path / "c/decaf-node/config.toml"
    assert places.state == tmp_path / "s/decaf-node"


@pytest.mark.parametrize(
    ("config", "unit", "folder"),
    [
        ("/etc/decaf-node/config.toml", "decaf-node", "decaf-node"),
        ("/etc/decaf-node/lab/config.toml", "decaf-node@lab", "decaf-node-lab"),
    ],
)
def test_the_places_of_a_service_follow_from_its_settings(config: str, unit: str, folder: str) -> None:
    places = find_places({"HOME": "/x", "XDG_RUNTIME_DIR": "/run/user/1000"}, Path(config))
    assert (places.state, places.runtime) == (Path("/var/lib", folder), Path("/run", folder))
    assert places.unit == unit


@pytest.mark.parametrize(
    "config", ["/etc/decaf-node/other.toml", "/etc/decaf-node/a/b/config.toml", "/srv/config.toml"]
)
def test_other_settings_are_of_no_service(config: str) -> None:
    places = find_places({"HOME": "/x", "XDG_RUNTIME_DIR": "/run/user/1000"}, Path(config))
    assert (places.state, places.runtime) == (Path("/x/.local/state/decaf-node"), Path("/run/user/1000/decaf-node"))
    assert places.unit == ""


def test_with_another_state_folder_they_are_of_no_service() -> None:
    places = find_places({"HOME": "/x"}, Path("/etc/decaf-node/config.toml"), Path("/srv/state"))
    assert (places.state, places.runtime, places.unit) == (Path("/srv/state"), Path("/run/decaf-node"), "")


def test_a_runtime_folder_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"too long.*\[settings.runtime-path-too-long\]"):
        find_places({}, runtime=Path("/" + "r" * SOCKET_PATH_LIMIT_BYTES))


def test_every_key_is_described() -> None:
    sections = {name: field.annotation for name, field in Settings.model_fields.items() if name != "lora"}
    for name, section in sections.items():
        assert section is not None
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key}"
