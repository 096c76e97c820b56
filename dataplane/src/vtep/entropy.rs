//! The outer source port: the same for every packet of an inner flow, spread over flows.
//!
//! RFC 7348 section 5 recommends a hash of the inner headers in the dynamic port range, so
//! that routers and NICs which hash outer headers spread flows over paths and queues.

pub use vxlane_abi::express::entropy::flow_label;

use crate::wire::{Ethernet, Layers, Network};

/// The first dynamic port (RFC 6335 section 6).
pub const FIRST_PORT: u16 = 49152;
const PORT_MASK: u64 = 0x3fff;

/// The outer source port of an overlay frame, 49152 to 65535.
///
/// Over IP it depends on addresses, protocol and, unless fragmented, ports, so that all
/// fragments of a datagram take one path; otherwise on MAC addresses and type. Not keyed:
/// a worker, another worker and the express lane must agree.
#[inline(always)]
pub fn source_port(frame: &[u8], layers: &Layers) -> u16 {
    let addresses = match layers.network {
        Network::Ipv4 => mix_words(layers.addresses(frame)),
        Network::Ipv6 | Network::Other => addresses_of_others(frame, *layers),
    };
    let protocol = layers.transport.map_or(0, |transport| u64::from(transport.protocol));
    let ports = layers.port_bytes(frame).map_or(0, u64::from);
    let hash = mix(addresses ^ SEED, (ports << 8 | protocol) ^ SEED.rotate_left(32));
    FIRST_PORT | (hash & PORT_MASK) as u16
}

#[inline(never)]
fn addresses_of_others(frame: &[u8], layers: Layers) -> u64 {
    match layers.addresses(frame) {
        [] => frame
            .first_chunk::<{ Ethernet::LEN }>()
            .map_or(0, |header| mix_words(&header[..8]) ^ mix_words(&header[6..])),
        addresses => mix_words(addresses),
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// One word as it is, more of them mixed into one; bytes beyond whole words do not count.
#[inline]
fn mix_words(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_ne_bytes(*word)).reduce(|hash, word| mix(hash, SEED) ^ word).unwrap_or(0)
}

/// Multiplies and folds the 128-bit product: every input bit reaches every output bit.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of the product")]
fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left).wrapping_mul(u128::from(right));
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn port_of(source: [u8; 4], source_port_: u16) -> u16 {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, [10, 0, 0, 2], 64).udp(source_port_, 53);
        builder.write(&mut frame, b"x").unwrap();
        source_port(&frame, &Layers::walk(&frame))
    }

    #[test]
    fn rfc7348_5_a_flow_keeps_its_port_and_flows_spread_evenly() {
        let mut buckets = [0u32; 64];
        for flow in 0..10_000u16 {
            let [high, low] = flow.to_be_bytes();
            let port = port_of([10, 0, high, low], 1024 + flow);
            assert!(port >= FIRST_PORT);
            assert_eq!(port, port_of([10, 0, high, low], 1024 + flow));
            buckets[usize::from(port & 63)] += 1;
        }
        let expected = 10_000.0 / 64.0;
        let chi_square: f64 = buckets.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        // 63 degrees of freedom: 0.1 % of fair dice exceed 103.4.
        assert!(chi_square < 103.4, "chi-square {chi_square}: {buckets:?}");
    }

    #[test]
    fn rfc6438_3_every_source_port_has_a_flow_label_of_its_own() {
        let labels: std::collections::HashSet<u32> = (FIRST_PORT..=u16::MAX).map(flow_label).collect();
        assert_eq!(labels.len(), 1 << 14);
        assert!(labels.iter().all(|&label| (1..1 << 20).contains(&label)));
    }

    #[test]
    fn flows_that_differ_in_one_port_get_different_ports() {
        let ports: std::collections::HashSet<_> = (0..1000).map(|n| port_of([10, 0, 0, 1], 10_000 + n)).collect();
        assert!(ports.len() > 950, "{}", ports.len());
    }

    #[test]
    fn the_programs_of_the_express_lane_come_to_the_same_port() {
        use vxlane_abi::express::entropy as theirs;

        let mut word = 1;
        for _ in 0..10_000 {
            // Steps of a congruential generator (Knuth, MMIX).
            let (left, right): (u64, u64) = (word, word.rotate_left(29) ^ SEED);
            assert_eq!(mix(left, right), theirs::mix(left, right), "{left:x} {right:x}");
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        assert_eq!(mix(u64::MAX, u64::MAX), theirs::mix(u64::MAX, u64::MAX));
        let addresses = [10, 0, 0, 1, 10, 0, 0, 2];
        let ports = u32::from_ne_bytes([0x04, 0, 0, 53]);
        let theirs = theirs::source_port(u64::from_ne_bytes(addresses), 17, ports);
        assert_eq!(port_of([10, 0, 0, 1], 1024), theirs);
    }
}
