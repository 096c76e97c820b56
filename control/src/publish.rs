//! What `--publish` says: ports of the host that lead to an endpoint.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive};

use vxlane_dataplane::nat::Protocol;

/// A port of the host that leads to one of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedPort {
    /// TCP or UDP, as [`Protocol`].
    protocol: u8,
    /// Of the host.
    pub port: u16,
    /// Of the endpoint.
    pub inside: u16,
}

/// Ports that are published together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The address of the host, if it was named.
    pub address: Option<Ipv4Addr>,
    /// One after the other.
    pub ports: Vec<PublishedPort>,
}

/// Ports that one range may have.
const MOST: usize = 1024;

impl PublishedPort {
    /// TCP or UDP.
    pub fn protocol(self) -> Protocol {
        if self.protocol == Protocol::Udp as u8 { Protocol::Udp } else { Protocol::Tcp }
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.port, self.protocol().name())
    }
}

impl Published {
    /// Reads `[address:]port[-port]:port[-port][/tcp|/udp]`: what is outside comes first.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (text, protocol) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, other)) => return Err(format!("`{other}` is neither `tcp` nor `udp`")),
        };
        let form = "not like 8080:80/tcp, 192.0.2.1:8080:80 or 8000-8009:80-89/udp";
        let (outer, inside) = text.rsplit_once(':').ok_or(form)?;
        let (address, outside) = match outer.rsplit_once(':') {
            Some((address, outside)) => {
                (Some(address.parse().map_err(|_| format!("`{address}` is not an IPv4 address"))?), outside)
            }
            None => (None, outer),
        };
        let (outside, inside) = (range(outside).ok_or(form)?, range(inside).ok_or(form)?);
        if outside.len() != inside.len() {
            return Err(format!("{} ports for {}: there must be as many on both sides", outside.len(), inside.len()));
        }
        if outside.len() > MOST {
            return Err(format!("more than {MOST} ports"));
        }
        let port = |(port, inside)| PublishedPort { protocol: protocol as u8, port, inside };
        Ok(Self { address, ports: outside.zip(inside).map(port).collect() })
    }
}

/// Every port that `texts` publish; those that cannot be read are left out.
pub fn ports(texts: &[String]) -> impl Iterator<Item = PublishedPort> + '_ {
    texts.iter().filter_map(|text| Published::parse(text).ok()).flat_map(|published| published.ports)
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (0 < first && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_protocols_and_addresses_are_understood() {
        let read = |text: &str| {
            let Published { address, ports } = Published::parse(text).unwrap();
            (address, ports.iter().map(|port| format!("{port}>{}", port.inside)).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("8080:80"), (None, "8080/tcp>80".to_owned()));
        assert_eq!(read("53:5353/udp"), (None, "53/udp>5353".to_owned()));
        assert_eq!(read("192.0.2.1:8080:80/tcp"), (Some([192, 0, 2, 1].into()), "8080/tcp>80".to_owned()));
        assert_eq!(read("8000-8001:80-81/udp"), (None, "8000/udp>80 8001/udp>81".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (text, reason) in [
            ("80", "not like"),
            ("0:80", "not like"),
            ("8080:", "not like"),
            ("90-80:1-2", "not like"),
            ("8080:80/sctp", "`sctp` is neither"),
            ("::1:8080:80", "`::1` is not an IPv4 address"),
            ("8000-8002:80-81", "3 ports for 2"),
            ("1-2000:1-2000", "more than 1024"),
        ] {
            let error = Published::parse(text).unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }
}
