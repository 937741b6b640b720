# SPDX-License-Identifier: Apache-2.0
"""Recording what a step reads: what is refused here; tests/pretend has it at work."""

import pytest
import torch

import geodiff as gd
from geodiff import recording


def test_what_is_refused() -> None:
    for room in (-0.1, float("inf"), "much", True):
        with pytest.raises(ValueError, match="Recording: `room` must be a number, 0 or more"):
            gd.Recording(room=room)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"nothing is recorded yet. Take a step within record\(\)"), one().replay():
        pass
    own = one()
    with own.record(), pytest.raises(RuntimeError, match="record: another recording is at work"), one().record():
        pass
    with own.replay(), pytest.raises(RuntimeError, match="replay: another recording is at work"), own.replay():
        pass
    with pytest.raises(ZeroDivisionError), own.record():
        1 / 0  # noqa: B018
    with pytest.raises(RuntimeError, match="nothing is recorded yet"), own.replay():
        pass
    with own.record():  # and the next one works
        pass
    assert repr(own) == "Recording(room=0.25, 0 reads)"


def test_a_refused_recording_leaves_the_one_at_work_as_it_is() -> None:
    flags, own = torch.rand(50) < 0.5, one()
    with own.record():
        recording.sizes(flags.sum())
        with pytest.raises(RuntimeError, match="another recording is at work"), own.record():
            pass
    with own.replay():
        recording.sizes(flags.sum())
        for again in (own.record, own.replay):
            with pytest.raises(RuntimeError, match="another recording is at work"), again():
                pass
    assert len(own) == 1


def one() -> gd.Recording:
    return gd.Recording()


def test_lists_have_room_to_spare() -> None:
    flags, own = torch.rand(50) < 0.5, gd.Recording(room=0.5)
    count = int(flags.sum())
    with own.record():
        assert recording.sizes(flags.sum(), (~flags).sum()) == [count, 50 - count]
    with own.replay():
        sizes = recording.sizes(flags.sum(), (~flags).sum())
        assert sizes == [int(1.5 * count) + 64, int(1.5 * (50 - count)) + 64]
        place = recording.packed(flags.cumsum(0), sizes[0])
        assert torch.equal(place[:count], flags.nonzero()[:, 0]) and bool((place[count:] == 50).all())
        values = torch.rand(50, 2)
        some = recording.rows(values, place, -1.0)
        assert torch.equal(some[:count], values[flags]) and bool((some[count:] == -1).all())
        assert torch.equal(recording.spread(some, place, 50, 7.0), torch.where(flags[:, None], values, 7.0))
        assert recording.or_nan(values, flags.sum(), count) is not values
        assert recording.or_nan(values, flags.sum(), count - 1).isnan().all()
    assert torch.equal(recording.places(flags), flags.nonzero()[:, 0])
