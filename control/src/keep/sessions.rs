//! Sessions of address translation in a file in memory, from one daemon to the next.
//!
//! One record for each, in the order of bytes of this machine: the file never leaves it. What
//! numbers mean may change with the version, which is why the file begins with one. Each internet
//! protocol has a file of its own.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vxlane_dataplane::{
    clock::Ticks,
    ids::NetworkId,
    nat::{Protocol, SessionView, State, Traffic},
    wire::{Address, MacAddr, Version},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The beginning of the file.
fn head<A: Address>() -> &'static [u8; 16] {
    match A::VERSION {
        Version::V4 => b"vxlane nat 2 v4\n",
        Version::V6 => b"vxlane nat 2 v6\n",
    }
}

/// A session, behind which its addresses follow: inside, outside, remote. Times are on the workers'
/// clock, which counts from the start of the machine.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    out: [u64; 2],
    back: [u64; 2],
    vni: u32,
    created: u32,
    deadline: u32,
    ports: [u16; 3],
    mac: [u8; 6],
    protocol: u8,
    state: u8,
    unused: [u8; 6],
}

/// Writes `sessions`, of networks that have these VNIs; those of other networks are left out.
///
/// # Errors
/// If there is no memory for it.
pub fn write<'a, A: Address>(
    sessions: impl IntoIterator<Item = &'a SessionView<A>>,
    vnis: &HashMap<NetworkId, u32>,
) -> io::Result<File> {
    let mut file = BufWriter::new(File::from(memfd_create("vxlane-sessions", MFdFlags::MFD_CLOEXEC)?));
    file.write_all(head::<A>())?;
    for session in sessions {
        let Some(&vni) = vnis.get(&session.network) else { continue };
        file.write_all(Record::of(session, vni).as_bytes())?;
        for (address, _) in [session.inside, session.outside, session.remote] {
            let mut bytes = [0; 16];
            address.replace(&mut bytes);
            file.write_all(&bytes[..size_of::<A::Bits>()])?;
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Reads what [`write()`] has written, as sessions of the networks that have these VNIs now; those of
/// networks that are gone are left out.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is of another version, or cut short.
pub fn read<A: Address>(mut file: File, networks: &HashMap<u32, NetworkId>) -> io::Result<Vec<SessionView<A>>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    BufReader::new(file).read_to_end(&mut bytes)?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let records = bytes.strip_prefix(head::<A>()).ok_or_else(|| bad("sessions of another version"))?;
    let records = records.chunks(size_of::<Record>() + 3 * size_of::<A::Bits>()).map(parted);
    let records: Vec<(Record, [A; 3])> =
        records.collect::<Option<_>>().ok_or_else(|| bad("sessions that are cut short"))?;
    Ok(records.iter().filter_map(|(record, addresses)| record.view(*addresses, networks)).collect())
}

/// A session, and its addresses.
fn parted<A: Address>(bytes: &[u8]) -> Option<(Record, [A; 3])> {
    let (record, rest) = Record::read_from_prefix(bytes).ok()?;
    let address = |place: usize| A::first(rest.get(place * size_of::<A::Bits>()..)?);
    Some((record, [address(0)?, address(1)?, address(2)?]))
}

impl Record {
    fn of<A>(session: &SessionView<A>, vni: u32) -> Self {
        Self {
            out: [session.out.packets(), session.out.bytes()],
            back: [session.back.packets(), session.back.bytes()],
            vni,
            created: session.created.0,
            deadline: session.deadline.0,
            ports: [session.inside.1, session.outside.1, session.remote.1],
            mac: session.mac.0,
            protocol: session.protocol as u8,
            state: session.state as u8,
            unused: [0; 6],
        }
    }

    fn view<A>(&self, addresses: [A; 3], networks: &HashMap<u32, NetworkId>) -> Option<SessionView<A>> {
        let [inside, outside, remote] = addresses;
        let ports = self.ports;
        Some(SessionView {
            protocol: *Protocol::ALL.get(usize::from(self.protocol))?,
            network: *networks.get(&self.vni)?,
            inside: (inside, ports[0]),
            mac: MacAddr(self.mac),
            outside: (outside, ports[1]),
            remote: (remote, ports[2]),
            state: *State::ALL.get(usize::from(self.state))?,
            created: Ticks(self.created),
            deadline: Ticks(self.deadline),
            out: Traffic::new(self.out[0], self.out[1]),
            back: Traffic::new(self.back[0], self.back[1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn session<A: From<[u8; N]>, const N: usize>(network: u16, port: u16, state: State) -> SessionView<A> {
        let address = |last: u8| {
            let mut octets = [0x20; N];
            octets[N - 1] = last;
            A::from(octets)
        };
        SessionView {
            protocol: Protocol::Udp,
            network: NetworkId(network),
            inside: (address(2), port),
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            outside: (address(1), 20_000),
            remote: (address(7), 53),
            state,
            created: Ticks(77),
            deadline: Ticks(4000),
            out: Traffic::new(1 << 35, 1 << 50),
            back: Traffic::new(3, 4),
        }
    }

    fn is_read_as_it_was_written<A: Address + From<[u8; N]>, const N: usize>() {
        let before: [SessionView<A>; 3] =
            [session(1, 1000, State::Udp), session(2, 2000, State::Reset), session(3, 3000, State::Udp)];
        let file = write(&before, &HashMap::from([(NetworkId(1), 5000), (NetworkId(2), 6000)])).unwrap();
        let after = read::<A>(file, &HashMap::from([(5000, NetworkId(7)), (6000, NetworkId(1))])).unwrap();
        assert_eq!(after, [session(7, 1000, State::Udp), session(1, 2000, State::Reset)]);
    }

    #[test]
    fn what_is_written_is_read_with_the_numbers_that_networks_have_then() {
        is_read_as_it_was_written::<Ipv4Addr, 4>();
        is_read_as_it_was_written::<Ipv6Addr, 16>();
    }

    #[test]
    fn sessions_of_a_network_that_is_gone_are_left_out() {
        let sessions: [SessionView; 1] = [session(1, 1000, State::Udp)];
        let file = write(&sessions, &HashMap::from([(NetworkId(1), 5000)])).unwrap();
        assert_eq!(read::<Ipv4Addr>(file, &HashMap::new()).unwrap(), []);
    }

    #[test]
    fn another_version_and_half_a_record_are_refused() {
        let (other, cut) = ("another version", "cut short");
        for (text, reason) in
            [("vxlane nat 1 v4\n", other), ("vxlane nat 2 v6\n", other), ("vxlane nat 2 v4\nhalf", cut)]
        {
            let mut file = File::from(memfd_create("test", MFdFlags::empty()).unwrap());
            file.write_all(text.as_bytes()).unwrap();
            let error = read::<Ipv4Addr>(file, &HashMap::new()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
