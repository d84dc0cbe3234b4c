"""docs/tuning.md says the figures that the rules go by."""

from __future__ import annotations

from pathlib import Path

from decaf_node.daemon.planning import rules
from decaf_node.mesh.topology import FULL_UP_TO

PAGE = Path(__file__).parents[3] / "docs" / "tuning.md"


def test_the_table_of_rules_has_their_figures() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    table = {rule: (alike, skewed) for _, rule, alike, skewed in (row for row in rows if len(row) == 4)}
    longest = f"{rules.LONGEST_EXCHANGE:g} s"
    assert table[f"`full` up to so many nodes, as long as the link carries it in {longest}"] == (
        str(FULL_UP_TO),
        str(rules.SKEWED_FULL_UP_TO),
    )
    assert table["at least so many local steps"] == (str(rules.LEAST_STEPS), str(rules.SKEWED_LEAST_STEPS))
    seconds = "for so many seconds at least: to publish, inspect and evaluate takes its time in each round"
    assert table[seconds] == (f"{rules.LEAST_SECONDS:g}",) * 2
    share = "and so many that exchange and mix take at most this part of them, with `round.overlap`"
    assert table[share] == (f"{rules.OVERLAPPED:.0%}".replace("%", " %"),) * 2
    assert table["without overlap"] == (f"{rules.APART:.0%}".replace("%", " %"),) * 2
    assert f"as it is; halved, down to {rules.LEAST_RANK}, where an exchange takes longer than {longest}" in table
    assert (rules.WAIT, "twice an exchange, where that is more than is set" in table) == (2.0, True)
