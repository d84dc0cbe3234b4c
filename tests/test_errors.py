from __future__ import annotations

import pickle

import pytest

from decaf_node.errors import KINDS, Bug, DecafError, from_exit_code
from decaf_node.training.examples import BadRow


def test_an_error_reads_as_one_sentence_with_its_reason() -> None:
    error = from_exit_code(65, "data.column-missing", "There is no column text in a.jsonl.")
    assert str(error) == "There is no column text in a.jsonl. [data.column-missing]"
    assert (error.reason, error.message) == ("data.column-missing", "There is no column text in a.jsonl.")


@pytest.mark.parametrize("error", [Bug("part.what", "Said in a worker."), BadRow("part.what", "Said in a worker.", 3)])
def test_an_error_comes_through_from_a_worker_process(error: DecafError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), vars(other)) == (type(error), "Said in a worker. [part.what]", vars(error))


@pytest.mark.parametrize("exit_code", sorted(KINDS))
def test_an_error_of_another_process_keeps_its_kind(exit_code: int) -> None:
    error = from_exit_code(exit_code, "part.what", "Said elsewhere.")
    assert type(error) is KINDS[exit_code]
    assert error.exit_code == exit_code


def test_an_unknown_exit_code_is_a_bug() -> None:
    assert type(from_exit_code(3, "part.what", "Said elsewhere.")) is Bug


def test_every_kind_has_its_own_exit_code() -> None:
    assert sorted(KINDS) == [64, 65, 69, 70, 75, 77, 78]
    assert set(KINDS.values()) == set(DecafError.__subclasses__())
