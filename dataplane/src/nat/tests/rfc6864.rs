//! RFC 6864: identifications of IPv4, which IPv6 has in fragments alone.

use super::*;

#[test]
fn rfc7857_10_rfc6864_datagrams_that_may_be_fragmented_further_on_get_identifications_of_our_own() {
    let mut rig = Rig::new();
    let mut leave = |host, flags| {
        let packet = edited_ip(udp(inside(host), SERVER, 1000, 53, b"x"), |packet| {
            packet[4..7].copy_from_slice(&[1, 2, flags]);
        });
        let wire = rig.out(&packet).unwrap();
        assert_checksums_hold(&wire);
        [wire[4], wire[5]]
    };
    assert_ne!(leave(2, 0), leave(3, 0), "two hosts that chose the same");
    assert_eq!([leave(2, 0x40), leave(3, 0x40)], [[1, 2]; 2], "whole packets that stay whole keep theirs");
}
