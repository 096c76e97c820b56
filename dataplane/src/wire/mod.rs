//! Bytes on the wire: one file per protocol, each a checked view and nothing more.
//!
//! A header type here is exactly its bytes (`#[repr(C)]`, alignment 1, network order inside
//! the [`zerocopy`] integers), so taking one from a slice is a length check and a cast.
//! Getters give host order. Nothing in this module allocates, panics or has a table.

pub mod arp;
pub mod checksum;
pub mod ecn;
pub mod ethernet;
pub mod fragments;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
pub mod nd;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use arp::Arp;
pub use ecn::Ecn;
pub use ethernet::{EtherType, Ethernet, MacAddr};
pub use fragments::Fragments;
pub use ip::{Address, Head, Version};
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use layers::{Layers, Network, Transport};
pub use tcp::Tcp;
pub use udp::Udp;
pub use vxlan::{Vni, Vxlan};

/// IP protocol numbers that the dataplane tells apart (IANA "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
}
