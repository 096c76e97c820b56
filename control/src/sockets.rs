//! The ports of this host that are in use, and by whom.

use std::{fs, io, path::Path};

use vxlane_dataplane::nat::Protocol;

/// A port that a socket of this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InUse {
    /// TCP or UDP, as [`Protocol`].
    pub protocol: u8,
    /// Its number.
    pub port: u16,
    /// The socket's inode, by which its process can be found; 0 if nobody has it any more.
    inode: u64,
}

/// Every TCP and UDP port that some socket of this network namespace has, whatever its state.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn in_use() -> io::Result<Vec<InUse>> {
    let tables = [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let mut found = Vec::new();
    for (table, protocol) in tables {
        match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| read(line, protocol))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The ports that the kernel gives to sockets that ask for none in particular.
///
/// # Errors
/// If the kernel does not say.
pub fn ephemeral() -> io::Result<std::ops::RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => Ok(first..=last),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("ip_local_port_range is {text:?}"))),
    }
}

impl InUse {
    /// The process that has the socket, as `name (pid)`, where that can be found out.
    pub fn owner(&self) -> Option<String> {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let numbered =
            processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
        let socket = format!("socket:[{}]", self.inode);
        let has = |process: &Path| {
            let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            open.into_iter()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()))
        };
        let process = numbered.map(|entry| entry.path()).find(|process| has(process))?;
        let name = fs::read_to_string(process.join("comm")).ok()?;
        Some(format!("{} ({})", name.trim(), process.file_name()?.to_string_lossy()))
    }
}

/// A line of `/proc/net/tcp`: number, local address and port, remote ones, state, queues, timers,
/// retransmissions, user, timeout, inode.
fn read(line: &str, protocol: Protocol) -> Option<InUse> {
    let mut words = line.split_whitespace();
    let (_, port) = words.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|&port| port != 0)?;
    let inode = words.nth(7).and_then(|inode| inode.parse().ok()).unwrap_or(0);
    Some(InUse { protocol: protocol as u8, port, inode })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_is_found_with_the_process_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let found = in_use().unwrap();
        for (protocol, port) in [
            (Protocol::Tcp, listener.local_addr().unwrap().port()),
            (Protocol::Udp, socket.local_addr().unwrap().port()),
        ] {
            let of = |used: &&InUse| used.protocol == protocol as u8 && used.port == port;
            let owner = found.iter().find(of).unwrap().owner().unwrap();
            assert!(owner.ends_with(&format!("({})", std::process::id())), "{owner}");
        }
    }

    #[test]
    fn a_line_is_read_and_an_odd_one_left_out() {
        let line = "  0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0";
        assert_eq!(read(line, Protocol::Tcp), Some(InUse { protocol: 0, port: 22, inode: 12345 }));
        assert_eq!(read("  sl  local_address", Protocol::Tcp), None);
        assert_eq!(read("", Protocol::Udp), None);
    }

    #[test]
    fn the_kernel_says_which_ports_it_gives() {
        let range = ephemeral().unwrap();
        assert!(range.start() < range.end());
    }
}
