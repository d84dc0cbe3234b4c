"""Reports as a daemon gives them, for tests of what is shown of them."""

from __future__ import annotations

from decaf_node.daemon.reports import EdgeReport, PeerReport, PrivacyReport, RoundReport, StatusReport, TrainerReport

NODE = "DCF7K2QX" + "A" * 44
OTHER = "WQ2M77FF" + "B" * 44


def round_report(number: int, accuracy: float | None = 0.9) -> RoundReport:
    return RoundReport(
        round=number,
        time=1_700_000_000.0 + number,
        steps=3,
        loss=1.0 / number,
        train_seconds=0.5,
        exchange_seconds=0.25,
        mix_seconds=0.125,
        edges=(EdgeReport(OTHER, 0.5, 0.2),),
        tail=0.01,
        interference=0.02,
        norm=1.5,
        consensus_distance=0.25,
        sent_bytes=200_000,
        received_bytes=200_000,
        evaluation_loss=None if accuracy is None else 0.3,
        evaluation_accuracy=accuracy,
        saved=True,
    )


def peer_report(name: str = "desk-b", state: str = "alive", problem: str = "", loss: float | None = None) -> PeerReport:
    return PeerReport(
        node=OTHER,
        name=name,
        state=state,
        addresses=("127.0.0.1:7433",),
        neighbour=True,
        round=4,
        heard_seconds=1.5,
        weight=0.5,
        distance=0.25,
        plain_distance=0.0,
        harm=0.0,
        clip_factor=1.0,
        mixes=4,
        problem=problem,
        loss=loss,
    )


def status_report(
    round: int = 4,
    phase: str = "training",
    problem: str = "",
    instance: str = "1",
    sent_bytes: int = 1_200_000,
    privacy: PrivacyReport | None = None,
    degree: int = 1,
) -> StatusReport:
    return StatusReport(
        node=NODE,
        name="orin-a",
        mesh="lab",
        version="0.1.0",
        instance=instance,
        phase=phase,
        problem=problem,
        round=round,
        saved_round=round - 1,
        mixes=round - 1,
        degree=degree,
        waiting_for=(OTHER,) if phase == "exchanging" else (),
        uptime_seconds=3725.0,
        resident_bytes=60_000_000,
        address="127.0.0.1:7434",
        schema="s",
        trainer=TrainerReport(
            pid=4711,
            state="ready",
            restarts=0,
            device="cpu",
            rank=8,
            parameters=25_989,
            loss=0.5,
            step=2,
            steps_per_second=8.0,
        ),
        last_round=round_report(round - 1) if round > 1 else None,
        sent_bytes=sent_bytes,
        received_bytes=sent_bytes,
        state_folder="/var/lib/decaf-node",
        adapter_folder="/var/lib/decaf-node/export/adapter",
        privacy=privacy,
    )
