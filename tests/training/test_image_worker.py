"""Tasks with images in the built-in trainer as a process: what it saves is all that it needs to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.pictured import clothes, image_settings, make_clip, make_vit
from tests.training.test_worker import check_it_goes_on

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("task", "make_model"), [("image-classification", make_vit), ("clip", make_clip)])
def test_a_restart_goes_on_bit_for_bit(task: str, make_model: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = clothes(tmp_path / "clothes", 3)
    settings = image_settings(task, make_model(tmp_path / "model"), folder, round={"steps": 3})
    check_it_goes_on(settings, tmp_path, 1, 2)  # 12 examples a round: over the end of an epoch
