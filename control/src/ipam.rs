//! Addresses of a subnet: which one comes next, and which ones nobody can have.

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnetwork::{Ipv4Network, Ipv6Network};

/// A subnet of IPv4 or IPv6.
pub trait Subnet: Copy + Display {
    /// What is in it.
    type Address: Copy;

    /// The first and the last address that an endpoint can have.
    fn hosts(self) -> Option<(u128, u128)>;

    /// Whether `address` is in it.
    fn has(self, address: Self::Address) -> bool;

    /// The number of `address`.
    fn number(address: Self::Address) -> u128;

    /// The address with this number.
    fn address(number: u128) -> Self::Address;
}

impl Subnet for Ipv4Network {
    type Address = Ipv4Addr;

    /// All but the subnet itself and the broadcast address.
    fn hosts(self) -> Option<(u128, u128)> {
        let (first, last) = (Self::number(self.network()), Self::number(self.broadcast()));
        (self.prefix() <= 30).then_some((first + 1, last - 1))
    }

    fn has(self, address: Ipv4Addr) -> bool {
        self.contains(address)
    }

    fn number(address: Ipv4Addr) -> u128 {
        u128::from(address.to_bits())
    }

    #[expect(clippy::cast_possible_truncation, reason = "the number of an IPv4 address has 32 bits")]
    fn address(number: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(number as u32)
    }
}

impl Subnet for Ipv6Network {
    type Address = Ipv6Addr;

    /// All but the anycast address of its routers (RFC 4291 section 2.6.1).
    fn hosts(self) -> Option<(u128, u128)> {
        let (first, last) = (Self::number(self.network()), Self::number(self.broadcast()));
        (self.prefix() <= 126).then_some((first + 1, last))
    }

    fn has(self, address: Ipv6Addr) -> bool {
        self.contains(address)
    }

    fn number(address: Ipv6Addr) -> u128 {
        address.to_bits()
    }

    fn address(number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(number)
    }
}

/// The first address behind `last` that is not `taken`, round the subnet and back to the start:
/// what was released just now comes last.
pub fn next<S: Subnet>(subnet: S, last: Option<S::Address>, taken: impl Fn(S::Address) -> bool) -> Option<S::Address> {
    let (first, end) = subnet.hosts()?;
    let start = last.map(S::number).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    let mut behind = (start..=end).chain(first..start).map(S::address);
    behind.find(|&address| !taken(address))
}

/// Why an endpoint or gateway cannot have `address` in `subnet`.
pub fn refuse<S: Subnet>(subnet: S, address: S::Address) -> Option<String> {
    let Some((first, end)) = subnet.hosts() else { return Some(format!("{subnet} has no addresses for endpoints")) };
    if !subnet.has(address) {
        Some(format!("not in the subnet {subnet}"))
    } else if S::number(address) < first {
        Some(format!("the address of the subnet {subnet} itself"))
    } else if S::number(address) > end {
        Some(format!("the broadcast address of {subnet}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Ipv4Network {
        "10.0.0.0/29".parse().unwrap()
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn addresses_are_given_in_turn_and_what_was_released_comes_last() {
        assert_eq!(next(subnet(), None, |_| false), Some(address(1)));
        assert_eq!(next(subnet(), Some(address(1)), |_| false), Some(address(2)));
        assert_eq!(next(subnet(), Some(address(2)), |a| a == address(3)), Some(address(4)));
        assert_eq!(next(subnet(), Some(address(6)), |_| false), Some(address(1)), "round");
        assert_eq!(next(subnet(), Some(address(4)), |a| a != address(4)), Some(address(4)), "the last resort");
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(next(subnet(), Some(address(3)), |_| true), None);
        assert_eq!(next("10.0.0.0/31".parse::<Ipv4Network>().unwrap(), None, |_| false), None);
    }

    #[test]
    fn the_ends_of_a_subnet_are_nobodys() {
        assert_eq!(refuse(subnet(), address(0)).unwrap(), "the address of the subnet 10.0.0.0/29 itself");
        assert_eq!(refuse(subnet(), address(7)).unwrap(), "the broadcast address of 10.0.0.0/29");
        assert_eq!(refuse(subnet(), address(8)).unwrap(), "not in the subnet 10.0.0.0/29");
        assert_eq!(refuse(subnet(), address(6)), None);
    }

    #[test]
    fn a_subnet_of_ipv6_has_no_broadcast_address_and_its_first_is_nobodys() {
        let subnet: Ipv6Network = "fd00::/126".parse().unwrap();
        let address = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        assert_eq!(next(subnet, None, |a| a == address(1)), Some(address(2)));
        assert_eq!(next(subnet, Some(address(3)), |_| false), Some(address(1)), "round");
        assert_eq!(next(subnet, Some(address(2)), |_| true), None);
        assert_eq!(refuse(subnet, address(0)).unwrap(), "the address of the subnet fd00::/126 itself");
        assert_eq!(refuse(subnet, address(4)).unwrap(), "not in the subnet fd00::/126");
        assert_eq!(refuse(subnet, address(3)), None);
        let large: Ipv6Network = "2001:db8::/64".parse().unwrap();
        let given = next(large, Some("2001:db8::ffff:ffff:ffff:ffff".parse().unwrap()), |_| false);
        assert_eq!(given, Some("2001:db8::1".parse().unwrap()));
    }
}
