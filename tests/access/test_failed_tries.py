"""How often an address may fail, and whom that touches."""

import logging

import pytest

from app.access import failed_tries
from app.access.failed_tries import TRIES, WINDOW_S, FailedTries
from app.errors import RateLimited
from tests.access.ring import Clock


def used_up(address: str, clock: Clock) -> FailedTries:
    tries = FailedTries(clock)
    for _ in range(TRIES):
        tries.count(address)
    return tries


def test_so_many_are_free_in_a_minute_and_then_it_says_when_to_come_back() -> None:
    clock = Clock()
    tries = used_up("192.0.2.1", clock)
    clock.now += 0.5
    with pytest.raises(RateLimited, match="20 failed tries a minute") as refusal:
        tries.count("192.0.2.1")
    assert refusal.value.retry_after_s == 60
    clock.now += 59
    with pytest.raises(RateLimited) as refusal:
        tries.count("192.0.2.1")
    assert refusal.value.retry_after_s == 1


def test_the_window_ends_however_many_tries_there_were() -> None:
    clock = Clock()
    tries = used_up("192.0.2.1", clock)
    clock.now += WINDOW_S - 1
    for _ in range(100):
        with pytest.raises(RateLimited):
            tries.count("192.0.2.1")
    clock.now += 1
    for _ in range(TRIES):
        tries.count("192.0.2.1")
    with pytest.raises(RateLimited):
        tries.count("192.0.2.1")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:db8:1:2::1", "2001:0DB8:0001:0002:0000::9"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("", "unix:"),
        ("192.0.2.1\nforged", "x" * 10_000),
    ],
)
def test_these_count_together(first: str, second: str) -> None:
    tries = used_up(first, Clock())
    with pytest.raises(RateLimited):
        tries.count(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("", "192.0.2.1"),
        ("::1", "127.0.0.1"),
    ],
)
def test_these_do_not(first: str, second: str) -> None:
    used_up(first, Clock()).count(second)


def test_the_log_has_one_line_for_an_addresss_window(caplog: pytest.LogCaptureFixture) -> None:
    tries = used_up("2001:db8::7", Clock())
    assert caplog.messages == []
    for _ in range(100):
        with pytest.raises(RateLimited):
            tries.count("2001:db8::7")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "2001:db8::/64" in record.getMessage()


def test_what_is_no_address_gets_nowhere_near_the_log(caplog: pytest.LogCaptureFixture) -> None:
    tries = used_up("forged\nline", Clock())
    with pytest.raises(RateLimited):
        tries.count("forged\nline")
    assert "forged" not in caplog.text


def test_of_too_many_addresses_the_one_not_heard_of_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failed_tries, "ADDRESSES", 2)
    tries = used_up("192.0.2.1", Clock())
    tries.count("192.0.2.2")
    with pytest.raises(RateLimited):
        tries.count("192.0.2.1")
    tries.count("192.0.2.3")
    with pytest.raises(RateLimited):
        tries.count("192.0.2.1")
    assert len(tries._windows) == 2
    tries.count("192.0.2.2")
    tries.count("192.0.2.3")
    tries.count("192.0.2.1")
