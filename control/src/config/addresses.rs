//! One address, or a list of them.

use std::{fmt, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

/// Addresses of one host: a string with one, or a list of strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<IpAddr>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Addresses;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an IP address, or a list of one IPv4 and one IPv6 address")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
        text.parse().map(|address| Addresses(vec![address])).map_err(E::custom)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Addresses, S::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = items.next_element()? {
            addresses.push(address);
        }
        Ok(Addresses(addresses))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            write!(out, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
