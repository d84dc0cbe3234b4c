"""What to do about each reason: a command to type where there is one."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace

from decaf_node.daemon.doctor.finding import Finding
from decaf_node.installed import NAME
from decaf_node.places import Places

# {config}, {state}, {runtime}, {identity}: this node's places; {user}: who owns the state folder; {start}: what starts
# the daemon; {interface}; {host}, {port}: of a peer's address.
REMEDIES = {
    "certificate.damaged": "decaf-node join INVITATION --state {state}   (`decaf-node invite` elsewhere makes one)",
    "certificate.expired": "decaf-node join INVITATION --state {state}   (`decaf-node invite` elsewhere makes one)",
    "certificate.expires-soon": "start the founder or an inviter of the mesh; it renews this certificate by itself",
    "certificate.missing": "put the file there, or mend security in {config}",
    "certificate.not-renewed": "start the founder or an inviter of the mesh; it renews this certificate by itself",
    "certificate.not-yet-valid": "sudo timedatectl set-ntp true",
    "certificate.other-key": "put the certificate of this node's key back, or join anew with a new state folder",
    "certificate.other-mesh": "join this mesh with a new state folder: decaf-node join INVITATION --state NEW_FOLDER",
    "clock.ahead": "sudo timedatectl set-ntp true",
    "clock.behind": "sudo timedatectl set-ntp true",
    "clock.differs": "sudo timedatectl set-ntp true",
    "clock.not-set": "sudo timedatectl set-ntp true   (without a network: sudo date -s 'YYYY-MM-DD HH:MM')",
    "clock.not-synchronised": "sudo timedatectl set-ntp true",
    "crl.missing": "put the file there, or mend security.crl in {config}",
    "crl.other-authority": "get the revocation lists of the authority that has signed this node's certificate",
    "crl.stale": "get the newest revocation list, and send the daemon SIGHUP",
    "daemon.elsewhere": "decaf-node doctor --runtime FOLDER   (the folder in which its control.sock lies)",
    "daemon.not-running": "{start}",
    "daemon.other-version": "restart the daemon, so that both are of one version",
    "daemon.paused": "decaf-node resume --runtime {runtime}",
    "daemon.slow": "try again; if it stays so, look at the load of this machine",
    "data.column-missing": "mend data.text_column or data.label_column in {config}, or the file",
    "data.empty": "put rows into the file, or name another in data.train of {config}",
    "data.missing": "mend data.train or data.evaluation in {config}",
    "data.unknown-format": "name the file .jsonl, .csv or .parquet, as it is one",
    "data.unknown-label": "mend model.labels in {config} or the row; labels are the same at every node",
    "data.unreadable": "mend the file, or take it out of data.train in {config}",
    "discovery.failed": "sudo ss -ulpn 'sport = 5353'   (shows who has mDNS's port for himself; stop that)",
    "discovery.no-interface": "ip address   (connect one, or set discovery.interfaces in {config})",
    "disk.failed": "df -h {state} {runtime}   (and `dmesg`: what does the disk say?)",
    "disk.forbidden": "sudo chown -R {user} {state} {runtime}",
    "disk.full": "df -h {state} {runtime}   (make room on the full one)",
    "disk.nearly-full": "df -h {state} {runtime}   (make room)",
    "disk.no-inodes": "df -i {state} {runtime}   (remove some of the many small files)",
    "disk.not-a-folder": "move the file away, or choose another place with --state or --runtime",
    "disk.read-only": "mount -o remount,rw FOLDER   (and look at `dmesg`: a failing disk is turned read-only)",
    "enrolment.failing": "set listen.enrolment_port in {config} to a free port, and restart the daemon",
    "files.other-user": "sudo -u {user} decaf-node doctor --config {config} --state {state} --runtime {runtime}",
    "identity.announced-elsewhere": "decaf-node doctor   (again in some minutes: an old address of this device is then "
    "forgotten; is what has that address a copy of it?)",
    "identity.cloned": "stop this device or the other one; on it: rm -r {state}, and decaf-node join INVITATION",
    "identity.cloned-peer": "stop one of the two; on it remove the state folder, and join anew",
    "identity.damaged": "put {identity}/key.pem back from a copy, or remove {state} and join anew",
    "identity.too-open": "chmod 700 {identity} && chmod 600 {identity}/*.pem",
    "listen.bad-address": "set listen.address in {config} to an address of this machine, or to 0.0.0.0",
    "listen.forbidden": "set listen.port in {config} to a port from 1024",
    "listen.port-in-use": "sudo ss -tlpn   (shows which program has it; stop that one or set another listen.port)",
    "machine.crashes": "reinstall torch for this machine: pip install --force-reinstall torch",
    "machine.gpu-fails": "nvidia-smi   (which processes hold it, and is it well?)",
    "machine.gpu-full": "nvidia-smi   (which processes hold it? The trainer of this node is one, if it runs)",
    "machine.gpu-unused": "install a build of torch for this GPU (on a Jetson: NVIDIA's), or set model.device to cpu",
    "machine.no-torch": "pip install --force-reinstall torch",
    "machine.too-slow": "decaf-node doctor   (again, when the machine has less to do)",
    "mesh.other-mesh": "set mesh.name the same in both settings (here: {config})",
    "mesh.other-name": "set mesh.name in {config} to theirs, if that is the mesh that you mean",
    "mesh.save-failed": "df -h {state}   (is it full, or failing?)",
    "model.damaged": "copy the model anew: its files are not whole",
    "model.missing": "set model.path in {config} to the folder of the base model",
    "model.no-cuda": "install a build of torch for this GPU, or set model.device to cpu in {config}",
    "model.not-a-model": "set model.path in {config} to a folder with config.json and *.safetensors",
    "monitor.port-in-use": "sudo ss -tlpn   (shows which program has it; stop that one or set another in {config})",
    "multicast.filtered": "switch on multicast in the switch or access point ('AP isolation' off), or keep mesh.peers",
    "multicast.no-flag": "sudo ip link set {interface} multicast on",
    "multicast.nobody-heard": 'start another node, or name one in {config}: mesh.peers = ["HOST:7433"]',
    "multicast.not-sent": "sudo ip route add 224.0.0.0/4 dev {interface}",
    "network.no-link": "plug the cable in, or: sudo ip link set {interface} up",
    "peer.certificate-expired": "let that device join anew, or set its clock: sudo timedatectl set-ntp true",
    "peer.certificate-not-yet-valid": "sudo timedatectl set-ntp true   (here, or there)",
    "peer.clock-differs": "on that device: sudo timedatectl set-ntp true",
    "peer.host-down": "switch that device on, or look at its network; is its address still the same?",
    "peer.name-unknown": "getent hosts {host}   (mend the name in mesh.peers of {config}, or the DNS)",
    "peer.no-address": "name it in mesh.peers of {config}",
    "peer.no-route": "ip route get {host}   (join that network, or mend the route)",
    "peer.no-tls": "look at what listens there: is it decaf-node, with the same security settings?",
    "peer.none-named": 'in {config}: discovery.mdns = true, or mesh.peers = ["HOST:7433"]',
    "peer.other-mesh": "let that device join this mesh, or take its address out of mesh.peers in {config}",
    "peer.other-model": "copy the base model of one device to the other, byte for byte, and restart",
    "peer.other-node": "take the address out of mesh.peers in {config}; the node is looked for by mDNS too",
    "peer.other-schema": "give both devices the same [model] task, pooling, labels, [lora] target_modules and "
    "[round] algorithm",
    "peer.refused": "on that device: decaf-node run",
    "peer.refuses": "do what it says, on the device that it names",
    "peer.silent": "on that device: sudo ufw allow {port}/tcp   (or what its firewall calls it)",
    "peer.trouble": "decaf-node doctor   (on that device too)",
    "revocations.damaged-file": "rm {identity}/revocations   (members tell it again)",
    "runtime.not-ours": "decaf-node run --runtime ANOTHER_FOLDER",
    "security.insecure": "decaf-node init   (makes a mesh with certificates; then run without --insecure)",
    "security.no-certificate": "decaf-node join INVITATION   (or found a mesh: decaf-node init)",
    "security.revoked": "ask the founder; to come back: a new state folder and a new invitation",
    "settings.bad-peer": "write host:port in mesh.peers of {config}",
    "settings.bad-value": "mend the value in {config}",
    "settings.missing": "decaf-node init   (or join), which write {config}; or name yours with --config",
    "settings.not-toml": "mend {config} at the line that is named",
    "settings.unknown-key": "take the key out of {config}, or mend its name (docs/settings.md has them all)",
    "settings.unreadable": "sudo chown {user} {config}",
    "spool.full": "raise limits.spool_bytes in {config}, and restart the daemon",
    "state.damaged": "restore {state} from a copy, or start with a new state folder",
    "state.damaged-file": "restore the file from a copy, or remove it",
    "state.other-identity": "put the old key back into {identity}, or start with a new state folder",
    "trainer.failing": "decaf-node run --log-level debug   (shows what the trainer writes)",
    "training.no-libraries": 'pip install "decaf-node[train]"   (into the environment that decaf-node runs from)',
}
# Where a reason has none of its own, by the kind of error; its sentence says more.
BY_KIND = {
    65: "mend the file that is named, or name another in {config}",
    75: "decaf-node doctor   (again, a little later)",
    77: "be the user who may, or turn on what it names",
    78: "mend it in {config}, and see: decaf-node config check --config {config}",
}
RUN = "decaf-node run --config {config} --state {state} --runtime {runtime}"
FIREWALLS = {
    "ufw": "sudo ufw allow 5353/udp",
    "firewall-cmd": "sudo firewall-cmd --permanent --add-service=mdns && sudo firewall-cmd --reload",
    "nft": "sudo nft list ruleset   (let UDP port 5353 in)",
    "iptables": "sudo iptables -I INPUT -p udp --dport 5353 -j ACCEPT",
}


def with_remedies(findings: Iterable[Finding], places: Places) -> list[Finding]:
    """Return the findings, each that has a reason with what to do about it, where that is known."""
    words = {
        "config": shlex.quote(str(places.config)),
        "state": shlex.quote(str(places.state)),
        "runtime": shlex.quote(str(places.runtime)),
        "identity": shlex.quote(str(places.state / "identity")),
        "user": owner_of(places),
        "start": f"sudo systemctl start {places.unit}" if places.unit else RUN,
    }
    words["start"] = words["start"].format(**words)
    return [_with_remedy(finding, words) for finding in findings]


def _with_remedy(finding: Finding, words: dict[str, str]) -> Finding:
    if finding.remedy or not finding.reason:
        return finding
    if finding.reason == "multicast.not-heard":
        return replace(finding, remedy=open_the_firewall())
    interface = finding.subject if finding.layer == "network" else "INTERFACE"
    host, _, port = finding.subject.rpartition(" ")[2].rpartition(":")  # of a peer
    remedy = REMEDIES.get(finding.reason) or BY_KIND.get(finding.exit_code, "")
    return replace(finding, remedy=remedy.format(**words, interface=interface, host=host, port=port))


def open_the_firewall() -> str:
    """Return how to let mDNS through the firewall that this machine has."""
    return next((command for tool, command in FIREWALLS.items() if shutil.which(tool)), FIREWALLS["nft"])


def owner_of(places: Places) -> str:
    """Return the name of the user whose state folder it is; of this user where there is none."""
    try:
        user = places.state.stat().st_uid
    except PermissionError:
        return NAME
    except OSError:
        user = os.geteuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
