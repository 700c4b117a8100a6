"""What an erasure is asked for."""

from __future__ import annotations

import pytest

from jobs.erasure.asked import asked_for
from jobs.erasure.tables import Target
from jobs.errors import SettingsError
from jobs.settings import Settings

pytestmark = pytest.mark.unit


def test_an_image_or_a_batch_is_asked_for_by_any_text_that_can_be_an_id() -> None:
    asked = asked_for(Settings(), subject=None, subject_file=None, image="../ a\nb", batch=" crm")
    assert asked == {Target("image", "../ a\nb"): ["--image"], Target("batch", " crm"): ["--batch"]}
    for image, batch in (("a\udcff", None), (None, "\udcff")):
        with pytest.raises(SettingsError, match="UTF-8"):
            asked_for(Settings(), subject=None, subject_file=None, image=image, batch=batch)
