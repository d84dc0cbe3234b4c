"""What goes wrong in a simulated mesh, and how often: three profiles, and rates that can be set one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decaf_node.errors import UsageError


@dataclass(frozen=True)
class Faults:
    """Rates of everything that can go wrong.

    loss:       part of the packets lost; a frame of a stream is sent again later, a hello is not answered
    jitter:     seconds that a frame is late at most, beyond the link's own delay
    duplicates: part of the discoveries, hellos and receipts that arrive twice, and out of order
    cuts:       part of the frames after which their stream breaks
    slow_links: part of the nodes behind a link of 1 Mbit/s
    strikes:    events a node and hour of those named in ``kinds``, until four fifths of the run
    kinds:      what may strike, drawn with equal odds (see ``strikes.py``)
    newcomers:  part of the nodes that come only in the middle of the run
    one_sided:  part of the ordered pairs whose discovery (multicast) reaches one side only
    spread:     how many times slower the slowest node is than the fastest, where nothing else is asked for
    skew:       the clock of a node runs faster or slower by at most this part
    varied:     settings that a user may choose (overlap, how often to save, when to adopt) are drawn for each seed, and
                so is how far the nodes differ in speed
    """

    loss: float = 0.0
    jitter: float = 0.0
    duplicates: float = 0.0
    cuts: float = 0.0
    slow_links: float = 0.0
    strikes: float = 0.0
    kinds: tuple[str, ...] = ()
    newcomers: float = 0.0
    one_sided: float = 0.0
    spread: float = 1.0
    skew: float = 0.0
    varied: bool = False


CHURN = ("kill", "leave")  # what strikes where a rate is all that is given

# Without a crash of a daemon, no edge may ever count at one end only.
GENTLE = ("break", "partition", "one-way", "trainer-lost", "out-of-memory", "not-finite", "pause", "goodbye")
ROUGH = (
    *GENTLE,
    "disk-full",
    "kill",
    "kill",
    "power-cut",
    "wiped",
    "leave",
    "freeze",
    "clock-jump",
    "damage",
    "stale",
    "clone",
)

PROFILES = {
    "none": Faults(),
    "mild": Faults(
        loss=0.01,
        jitter=0.05,
        duplicates=0.01,
        cuts=0.002,
        strikes=1.0,
        kinds=("break", "partition", "trainer-lost", "kill", "leave"),
        newcomers=0.05,
        spread=4.0,
        skew=1e-4,
    ),
    "storm": Faults(
        loss=0.05,
        jitter=0.5,
        duplicates=0.05,
        cuts=0.02,
        slow_links=0.1,
        strikes=25.0,
        kinds=ROUGH,
        newcomers=0.2,
        one_sided=0.2,
        spread=20.0,
        skew=0.01,
        varied=True,
    ),
}


def choose(profile: str, loss: float | None = None, cuts: float | None = None, strikes: float | None = None) -> Faults:
    """Return a profile with some of its rates replaced; None leaves a rate as it is.

    Raises UsageError ``simulate.impossible`` if there is no such profile.
    """
    if profile not in PROFILES:
        names = ", ".join(PROFILES)
        raise UsageError("simulate.impossible", f"No faults are called {profile!r}; choose one of {names}.")
    faults = PROFILES[profile]
    return replace(
        faults,
        loss=faults.loss if loss is None else loss,
        cuts=faults.cuts if cuts is None else cuts,
        strikes=faults.strikes if strikes is None else strikes,
        kinds=faults.kinds if strikes is None else faults.kinds or CHURN,
    )
