//! Addresses of a subnet: which one comes next, and which ones nobody can have.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// The first address behind `last` that is not `taken`, round the subnet and back to the start:
/// what was released just now comes last.
pub fn next(subnet: Ipv4Network, last: Option<Ipv4Addr>, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let (first, end) = hosts(subnet)?;
    let start = last.map(u32::from).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    let behind = (start..=end).chain(first..start).map(Ipv4Addr::from);
    behind.into_iter().find(|&address| !taken(address))
}

/// Why an endpoint or gateway cannot have `address` in `subnet`.
pub fn refuse(subnet: Ipv4Network, address: Ipv4Addr) -> Option<String> {
    let Some((first, end)) = hosts(subnet) else { return Some(format!("{subnet} has no addresses for endpoints")) };
    if !subnet.contains(address) {
        Some(format!("not in the subnet {subnet}"))
    } else if u32::from(address) < first {
        Some(format!("the address of the subnet {subnet} itself"))
    } else if u32::from(address) > end {
        Some(format!("the broadcast address of {subnet}"))
    } else {
        None
    }
}

/// The first and the last address that an endpoint can have.
fn hosts(subnet: Ipv4Network) -> Option<(u32, u32)> {
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    (subnet.prefix() <= 30).then_some((first + 1, last - 1))
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
        assert_eq!(next("10.0.0.0/31".parse().unwrap(), None, |_| false), None);
    }

    #[test]
    fn the_ends_of_a_subnet_are_nobodys() {
        assert_eq!(refuse(subnet(), address(0)).unwrap(), "the address of the subnet 10.0.0.0/29 itself");
        assert_eq!(refuse(subnet(), address(7)).unwrap(), "the broadcast address of 10.0.0.0/29");
        assert_eq!(refuse(subnet(), address(8)).unwrap(), "not in the subnet 10.0.0.0/29");
        assert_eq!(refuse(subnet(), address(6)), None);
    }
}
