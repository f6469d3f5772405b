"""What an address is counted as."""

import pytest

from voice_agent.access.address_keys import address_key, lies_in
from voice_agent.settings.lists import networks


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_address_is_counted_by_what_its_owner_cant_change(address: str, key: str) -> None:
    """All of an IPv6 /64 is one; a mapped IPv4 address is the IPv4 address; anything else stands for itself."""
    assert address_key(address) == key


@pytest.mark.parametrize(
    ("address", "is_in"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::2", False),
        ("192.0.2.7", False),
        ("unknown", False),
    ],
)
def test_networks_hold_addresses_of_their_own_family(address: str, is_in: bool) -> None:
    """A mapped address is looked up as what it maps; no address lies nowhere."""
    assert lies_in(address, networks("127.0.0.0/8, ::1/128")) is is_in
    assert not lies_in(address, ())
