"""Quotas and limits: what is a client's own, and what holds."""

from dataclasses import fields

import pytest

from sidecar.core.model import Limits, Quota
from tests.harness.allowed import LIMITS


def test_a_quota_and_limits_have_the_same_fields() -> None:
    """In the same order: each limit can be a client's own."""
    assert [each.name for each in fields(Quota)] == [each.name for each in fields(Limits)]


def test_what_is_a_clients_own_goes_before_the_settings() -> None:
    """Field by field."""
    for each in fields(Limits):
        holds = LIMITS.under(Quota(**{each.name: 7}))
        assert [
            one.name for one in fields(Limits) if getattr(holds, one.name) != getattr(LIMITS, one.name)
        ] == [each.name]
        assert getattr(holds, each.name) == 7
    assert LIMITS.under(Quota()) == LIMITS


def test_limits_are_made_of_a_quota_in_which_nothing_is_missing() -> None:
    """Else it says what is."""
    whole = Quota(*range(1, 10))
    assert Limits.of(whole) == Limits(*range(1, 10))
    with pytest.raises(ValueError, match="no limit for bytes, mailbox_bytes"):
        Limits.of(
            Quota(
                slots=1,
                ttl=1,
                requests_per_second=1,
                requests_burst=1,
                stores_per_minute=1,
                offer_paths_per_minute=1,
                mailbox_letters=1,
            )
        )
