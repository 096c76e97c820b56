//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{EtherType, Ethernet, MacAddr};

/// An ARP packet, without the padding behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Arp {
    hardware: U16,
    protocol: EtherType,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16,
    /// The Ethernet address of who speaks.
    pub sender_mac: MacAddr,
    sender: [u8; 4],
    /// The Ethernet address of who is spoken to.
    pub target_mac: MacAddr,
    target: [u8; 4],
}

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// "Who has the target address?"
    Request,
    /// "The sender has the sender address."
    Reply,
    /// Something that RFC 826 does not define.
    Other,
}

impl Arp {
    /// Bytes of the packet.
    pub const LEN: usize = size_of::<Self>();

    /// "Who has `target`? Tell `sender`."
    pub fn request(sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            hardware: U16::new(1),
            protocol: EtherType::IPV4,
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(1),
            sender_mac,
            sender: sender.octets(),
            target_mac: MacAddr::ZERO,
            target: target.octets(),
        }
    }

    /// The answer to this request: its target is at `mac`.
    #[must_use]
    pub fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: U16::new(2),
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
            ..*self
        }
    }

    /// The packet in `payload`, if it is of the one form that RFC 826 gives it for IPv4 over Ethernet.
    pub fn new_checked(payload: &[u8]) -> Option<&Self> {
        let (packet, _) = Self::ref_from_prefix(payload).ok()?;
        let is_ours = packet.hardware.get() == 1
            && packet.protocol == EtherType::IPV4
            && packet.hardware_length == 6
            && packet.protocol_length == 4;
        is_ours.then_some(packet)
    }

    /// What it wants.
    pub fn operation(&self) -> Operation {
        match self.operation.get() {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => Operation::Other,
        }
    }

    /// The address of who speaks; unspecified in a probe (RFC 5227).
    pub fn sender(&self) -> Ipv4Addr {
        self.sender.into()
    }

    /// The address that is spoken of in a request.
    pub fn target(&self) -> Ipv4Addr {
        self.target.into()
    }

    /// Writes this into an Ethernet frame to `destination` and returns its length.
    pub fn write(&self, destination: MacAddr, out: &mut [u8]) -> Option<usize> {
        let ethernet = Ethernet { destination, source: self.sender_mac, ether_type: EtherType::ARP };
        ethernet.write_to_prefix(out).ok()?;
        self.write_to_prefix(out.get_mut(Ethernet::LEN..)?).ok()?;
        Some(Ethernet::LEN + Self::LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn a_request_and_its_reply_are_the_bytes_of_rfc_826() {
        let request = Arp::request(A, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let bytes = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xa, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
        assert_eq!(request.as_bytes(), bytes);
        let reply = request.reply(B);
        let bytes = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 0xb, 10, 0, 0, 2, 2, 0, 0, 0, 0, 0xa, 10, 0, 0, 1];
        assert_eq!(reply.as_bytes(), bytes);
        assert_eq!((request.operation(), reply.operation()), (Operation::Request, Operation::Reply));
    }

    #[test]
    fn other_forms_are_not_taken_for_it() {
        let right = Arp::request(A, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for at in [0, 1, 2, 3, 4, 5] {
            let mut bytes = right.as_bytes().to_vec();
            bytes[at] ^= 0xff;
            assert_eq!(Arp::new_checked(&bytes), None, "byte {at}");
        }
        assert_eq!(Arp::new_checked(&right.as_bytes()[..27]), None, "cut short");
    }
}
