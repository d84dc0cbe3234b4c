"""The life of the Debian package on a machine that is booted for it; a JSON line a step, each building on the last.

Run as root in namespaces of its own, see ``network_lab.ALONE``:
``... python -m tests.e2e.package_lab FOLDER-OF-PACKAGES FOLDER-WITH-TORCH [STEP...]``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.daemon.booted import Machine, bare
from tests.daemon.processes import ROOT
from tests.training.tiny import make_bert, topic_rows, write_rows

UNIT, STATE, SETTINGS = "decaf-node", "/var/lib/decaf-node", "/etc/decaf-node/config.toml"
MODEL, DATA = Path("/srv/model"), Path("/srv/rows.jsonl")
PACKAGES = Path("/srv/packages")
DPKG = ("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-unsafe-io")
GIVEN = ("--mesh", "lab", "--model", str(MODEL), "--data", str(DATA), "--listen", "127.0.0.1")
REST = """
[discovery]
mdns = false
[lora]
r = 2
target_modules = ["query", "value"]
[round]
steps = 2
[store]
save_every = 0
"""


HOSTS = {"a": 7533, "b": 7543, "c": 7553}
ANSIBLE = ("env", "ANSIBLE_NOCOLOR=1", "ansible-playbook", "--forks", "1")  # they share one dpkg
PLAY = (*ANSIBLE, "--inventory", "/srv/hosts.yml", "/srv/ansible/site.yml")
WITHOUT_TRAINER = f"""[mesh]
name = "lab"
[listen]
address = "127.0.0.1"
port = {{port}}
enrolment_port = {{enrolment}}
[discovery]
mdns = false
[model]
path = "{MODEL}"
[data]
train = ["{DATA}"]
[training]
trainer = "external"
"""


# What decaf-node needs that is not in the package, though the machine has it: the torch that a Jetson brings.
FROM_ELSEWHERE = """
from importlib.metadata import distribution, requires
from packaging.requirements import Requirement
train = {"extra": "train"}
all_of_them = map(Requirement, requires("decaf-node"))
needed = [each for each in all_of_them if each.marker is None or each.marker.evaluate(train)]
places = {each.name: str(distribution(each.name).locate_file("")) for each in needed}
print(sorted(name for name, place in places.items() if not place.startswith("/usr/lib/decaf-node/")))
"""


def write_hosts(root: Path, **more: str) -> None:
    """Write the inventory: three hosts that are nodes of one machine; more: settings of one of them."""
    hosts = {
        name: {
            "ansible_connection": "local",
            "decaf_node_instance": name,
            "decaf_node_settings": WITHOUT_TRAINER.format(port=port, enrolment=port + 1) + more.get(name, ""),
        }
        for name, port in HOSTS.items()
    }
    common = {"decaf_node_mesh": "lab", "decaf_node_founder": "a", "decaf_node_deb": str(PACKAGES / "new.deb")}
    (root / "srv/hosts.yml").write_text(json.dumps({"decaf_node": {"vars": common, "hosts": hosts}}))


def prepare(root: Path) -> None:
    """Put model and data there; and let packages start services, which containers forbid."""
    (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    make_bert(root / MODEL.relative_to("/"))
    write_rows(root / DATA.relative_to("/"), topic_rows())
    write_hosts(root)
    for place in (root / "srv", *(root / "srv").rglob("*")):
        place.chmod(0o755)


def install(machine: Machine) -> None:
    """The service is enabled, and waits for a mesh."""
    machine.do(*DPKG, "--install", PACKAGES / "old.deb")
    assert machine.do("systemctl", "is-enabled", UNIT) == "enabled\n"
    assert machine.value(UNIT, "ActiveState") == "inactive"
    assert machine.value(UNIT, "ConditionResult") == "no"
    assert machine.do("decaf-node", "version").splitlines()[0].split() == ["decaf-node", version(machine)]
    assert "decaf-node" in machine.do("id", "decaf-node")
    assert machine.do("/usr/lib/decaf-node/bin/python", "-c", FROM_ELSEWHERE) == "['torch']\n"
    assert not changed(machine), changed(machine)


def configure_and_start(machine: Machine) -> None:
    """`decaf-node init` as root is all that it takes, and torch trains."""
    said = machine.do("decaf-node", "init", *GIVEN)
    assert "systemctl enable --now decaf-node\n" in said, said
    settings = machine.root / SETTINGS.lstrip("/")
    settings.write_text(settings.read_text().replace("[model]\n", '[model]\npooling = "mean"\n') + REST)
    machine.do("systemctl", "enable", "--now", UNIT)
    machine.until(lambda: status(machine)["saved_round"] >= 2, "it trains and saves", patience=120.0)


def upgrade(machine: Machine) -> None:
    """A running service is restarted, and goes on where it was."""
    node, process, saved = status(machine)["node"], machine.value(UNIT, "MainPID"), status(machine)["saved_round"]
    machine.do(*DPKG, "--install", PACKAGES / "new.deb")
    assert version(machine).endswith("+upgraded")
    assert machine.value(UNIT, "ActiveState") == "active"
    assert machine.value(UNIT, "MainPID") not in ("0", process)
    machine.until(lambda: status(machine)["saved_round"] > saved, "it goes on", patience=120.0)
    assert status(machine)["node"] == node
    assert not changed(machine), changed(machine)


def respect_who_disabled_it(machine: Machine) -> None:
    """What an administrator has stopped and disabled stays so."""
    machine.do("systemctl", "disable", "--now", UNIT)
    machine.do("env", "DEBIAN_FRONTEND=noninteractive", "dpkg-reconfigure", UNIT)
    assert machine.value(UNIT, "ActiveState") == "inactive"
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "disabled\n"
    machine.do("systemctl", "enable", "--now", UNIT)


def a_node_that_does_not_come_up_holds_up_no_package(machine: Machine) -> None:
    """Its settings were broken meanwhile: it says so, and dpkg is done with it."""
    settings = machine.root / SETTINGS.lstrip("/")
    good = settings.read_text()
    settings.write_text(f"{good}\n[unknown]\n")
    machine.do("env", "DEBIAN_FRONTEND=noninteractive", "dpkg-reconfigure", UNIT)
    assert machine.do("dpkg-query", "--show", "--showformat=${Status}", UNIT) == "install ok installed"
    machine.until(lambda: machine.value(UNIT, "ExecMainStatus") == "78", "it has refused its settings")
    settings.write_text(good)
    machine.do("systemctl", "restart", UNIT)


def remove(machine: Machine) -> None:
    """The service ends; state and settings stay."""
    saved = saved_files(machine)
    machine.do(*DPKG, "--remove", UNIT)
    assert machine.run("systemctl", "is-active", UNIT).stdout == "inactive\n"
    assert machine.run("pgrep", "--full", "decaf_node").returncode == 1
    for gone in ("/usr/lib/decaf-node", "/usr/bin/decaf-node", "/run/decaf-node"):
        assert machine.run("ls", gone).returncode == 2, gone
    assert saved <= saved_files(machine)
    machine.do("ls", SETTINGS)


def purge(machine: Machine) -> None:
    """The settings go; the state, which nobody was there to give up, stays."""
    machine.do(*DPKG, "--purge", UNIT)
    assert machine.run("ls", "/etc/decaf-node").returncode == 2
    assert "identity/key.pem" in saved_files(machine)
    assert machine.run("dpkg", "--status", UNIT).returncode == 1


def purge_with_state(machine: Machine) -> None:
    """Who says yes is rid of it."""
    machine.do(*DPKG, "--install", PACKAGES / "stub.deb")
    answer = "decaf-node decaf-node/purge-state boolean true"
    machine.do("sh", "-c", f"echo {answer} | debconf-set-selections")
    machine.do(*DPKG, "--purge", UNIT)
    for gone in (STATE, "/etc/decaf-node", "/var/cache/decaf-node"):
        assert machine.run("ls", gone).returncode == 2, gone
    found = machine.do(
        "find", "/etc", "/usr", "/var/lib/systemd", "-name", "decaf-node*", "-not", "-path", "/usr/src/*"
    )
    assert found == ""


def ansible_makes_a_mesh(machine: Machine) -> None:
    """Three nodes of this machine; all is installed, founded, invited, joined, started."""
    machine.do(*PLAY)
    nodes = [status(machine, name) for name in HOSTS]
    assert len({node["node"] for node in nodes}) == 3
    assert {node["mesh"] for node in nodes} == {"lab"}
    for name in HOSTS:
        assert machine.do("systemctl", "is-enabled", f"decaf-node@{name}") == "enabled\n"
        assert machine.value(f"decaf-node@{name}", "ActiveState") == "active"


def ansible_again_changes_what_differs(machine: Machine) -> None:
    """The settings of one are written, and it is restarted; nothing else happens, and nothing elsewhere."""
    processes = {name: machine.value(f"decaf-node@{name}", "MainPID") for name in HOSTS}
    write_hosts(machine.root, c="[node]\nname = 'renamed'\n")
    recap = machine.do(*PLAY).partition("PLAY RECAP")[2]
    assert (recap.count("changed=0 "), recap.count("changed=2 ")) == (2, 1), recap
    assert status(machine, "c")["name"] == "renamed"
    restarted = [name for name in HOSTS if machine.value(f"decaf-node@{name}", "MainPID") != processes[name]]
    assert restarted == ["c"]


def purge_of_several(machine: Machine) -> None:
    """No unit of a node stays enabled."""
    machine.do(*DPKG, "--purge", UNIT)
    assert machine.do("find", "/etc/systemd", "-name", "decaf-node*") == ""


STEPS = (
    install,
    configure_and_start,
    upgrade,
    respect_who_disabled_it,
    a_node_that_does_not_come_up_holds_up_no_package,
    remove,
    purge,
    purge_with_state,
    ansible_makes_a_mesh,
    ansible_again_changes_what_differs,
    purge_of_several,
)


def changed(machine: Machine) -> list[str]:
    """Return what is not as it was packed; a machine may put its own authorities into certifi's list."""
    return [line for line in machine.do("dpkg", "--verify", UNIT).splitlines() if "/certifi/" not in line]


def version(machine: Machine) -> str:
    return machine.do("dpkg-query", "--show", "--showformat=${Version}", UNIT)


def status(machine: Machine, instance: str = "") -> Any:
    return json.loads(
        machine.do("decaf-node", "status", "--json", "--config", str(Path("/etc/decaf-node", instance, "config.toml")))
    )


def saved_files(machine: Machine) -> set[str]:
    return set(machine.do("find", STATE, "-path", "*/identity/*", "-printf", "%P\n").split())


def main() -> None:
    packages, torch, *wanted = sys.argv[1:]
    library = "/usr/local/lib/python{}.{}/dist-packages".format(*sys.version_info)
    binds = [f"--bind-ro={packages}:{PACKAGES}", f"--bind-ro={torch}:{library}"]
    binds.append(f"--bind-ro={ROOT / 'deploy/ansible'}:/srv/ansible")
    with tempfile.TemporaryDirectory(prefix="decaf-package-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        say = partial(print, flush=True)
        with bare(Path(folder), prepare, binds) as machine:
            for step in (step for step in STEPS if not wanted or step.__name__ in wanted):
                began = time.monotonic()
                step(machine)
                say(json.dumps({"step": step.__name__, "seconds": round(time.monotonic() - began, 1)}))
        say("done")


if __name__ == "__main__":
    main()
