//! The host's own side of published ports: nobody else may listen there, and the host itself
//! gets through.
//!
//! What comes from outside the steering program hands to the workers before the host's stack
//! sees it. A process of the host, though, talks to the host's address without any device. So a
//! socket of ours has each published port, and passes what reaches it on to the container.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io, mem,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
    task::AbortHandle,
    time::timeout,
};
use vxlane_dataplane::nat::Protocol;

use super::Daemon;
use crate::{
    desired::{Plan, PlannedEndpoint, Problem, Refused},
    publish::{self, PublishedPort},
    sockets,
};

/// Ports that are ours, each with the task that serves it, and why others are not, as told last.
#[derive(Default)]
pub(super) struct HostSide {
    served: HashMap<PublishedPort, Served>,
    complaints: HashMap<PublishedPort, String>,
}

struct Served {
    task: AbortHandle,
    /// Where it leads.
    door: Door,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An endpoint's own end of a connection from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    /// The network namespace to call from; without one, nobody can be called.
    netns: Option<PathBuf>,
    to: SocketAddr,
}

/// How long a container has to answer a call, and a UDP client may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds that a task has to end after it was told so.
const LAST_BREATHS: u32 = 20;
/// UDP clients of one port at once.
const CLIENTS: usize = 256;

impl Daemon {
    /// Has every port that `plan` publishes be ours.
    ///
    /// # Errors
    /// The first that cannot be had, with the name of who has it.
    pub(super) fn reserve(&mut self, plan: &Plan) -> Result<(), Refused> {
        for endpoint in &plan.endpoints {
            for port in publish::ports(&endpoint.publish) {
                // Without an address of the host there is no network that a port could lead into.
                let Some(address) = plan.outside else { continue };
                self.host_side
                    .reserve(address, port, door(endpoint, port))
                    .map_err(|reason| Refused::Conflict(Problem::new("publish", format!("\"{port}\""), reason)))?;
            }
        }
        Ok(())
    }

    /// Gives the ports back that nobody publishes any more, and tries again for those that were
    /// not to be had at the start.
    pub(super) fn keep_reserved(&mut self) {
        let mut wanted: HashMap<PublishedPort, Door> = HashMap::new();
        for endpoint in &self.plan.endpoints {
            wanted.extend(publish::ports(&endpoint.publish).map(|port| (port, door(endpoint, port))));
        }
        self.host_side.served.retain(|port, served| wanted.get(port) == Some(&served.door));
        let before = mem::take(&mut self.host_side.complaints);
        for (port, door) in wanted {
            let Some(address) = self.plan.outside else { continue };
            if let Err(reason) = self.host_side.reserve(address, port, door) {
                if before.get(&port) != Some(&reason) {
                    tracing::warn!(%port, reason, "not published");
                }
                self.host_side.complaints.insert(port, reason);
            }
        }
    }

    /// The ports that are published: those that are ours.
    pub(super) fn published(&self) -> HashSet<PublishedPort> {
        self.host_side.served.keys().copied().collect()
    }
}

impl HostSide {
    fn reserve(&mut self, address: Ipv4Addr, port: PublishedPort, door: Door) -> Result<(), String> {
        if self.served.get(&port).is_some_and(|served| served.door == door) {
            return Ok(());
        }
        let bind = || serve(SocketAddrV4::new(address, port.port).into(), port.protocol(), door.clone());
        let mut task = bind();
        // A task of ours that had the port may be on its last breath.
        for _ in 0..LAST_BREATHS {
            if !task.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
            task = bind();
        }
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let told = |error| if in_use(&error) { in_use_by(port) } else { format!("cannot be bound: {error}") };
        let task = task.map_err(told)?;
        self.served.insert(port, Served { task, door });
        Ok(())
    }
}

/// Who has `port`, in words.
fn in_use_by(port: PublishedPort) -> String {
    let is_it = |used: &&sockets::InUse| used.port == port.port && used.protocol == port.protocol() as u8;
    let owner = sockets::in_use().ok().and_then(|used| used.iter().filter(is_it).find_map(sockets::InUse::owner));
    owner.map_or_else(|| "in use on this host".to_owned(), |owner| format!("in use by {owner}"))
}

fn door(endpoint: &PlannedEndpoint, port: PublishedPort) -> Door {
    let address = endpoint.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let netns = endpoint.veth.as_ref().map(|veth| veth.netns.clone());
    Door { netns, to: SocketAddrV4::new(address, port.inside).into() }
}

/// Binds `address` now and serves it in a task of its own.
fn serve(address: SocketAddr, protocol: Protocol, door: Door) -> io::Result<AbortHandle> {
    let task = match protocol {
        Protocol::Udp => {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            tokio::spawn(async move { pass_datagrams(socket, door).await })
        }
        Protocol::Tcp | Protocol::Icmp => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(async move { accept(listener, door).await })
        }
    };
    Ok(task.abort_handle())
}

/// Passes every connection on. Ends only with the listener.
async fn accept(listener: TcpListener, door: Door) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            // Too many open files, most likely: others may be closed meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let door = door.clone();
        tokio::spawn(async move {
            // Dropping the client, should nobody answer, tells it so.
            if let Some(mut inside) = door.call().await {
                let _ = copy_bidirectional(&mut client, &mut inside).await;
            }
        });
    }
}

/// Passes every datagram on, from a socket of its own for each client, and the answers back.
async fn pass_datagrams(outside: UdpSocket, door: Door) {
    let outside = Arc::new(outside);
    let clients: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>> = Arc::default();
    let locked = |clients: &Mutex<HashMap<_, _>>| clients.lock().unwrap_or_else(PoisonError::into_inner).len();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((length, client)) = outside.recv_from(&mut datagram).await else { continue };
        let known = clients.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
        let inside = match known {
            Some(inside) => inside,
            None if locked(&clients) >= CLIENTS => continue,
            None => {
                let Some(inside) = door.open_socket().await.map(Arc::new) else { continue };
                clients.lock().unwrap_or_else(PoisonError::into_inner).insert(client, Arc::clone(&inside));
                tokio::spawn(answer(Arc::clone(&outside), Arc::clone(&inside), client, Arc::clone(&clients)));
                inside
            }
        };
        // A datagram may be lost.
        let _ = inside.send(&datagram[..length]).await;
    }
}

/// Passes answers to `client` until it has been silent for long.
async fn answer(
    outside: Arc<UdpSocket>,
    inside: Arc<UdpSocket>,
    client: SocketAddr,
    clients: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>,
) {
    let mut datagram = vec![0; 65_536];
    while let Ok(Ok(length)) = timeout(PATIENCE, inside.recv(&mut datagram)).await {
        let _ = outside.send_to(&datagram[..length], client).await;
    }
    clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
}

impl Door {
    /// A connection to the endpoint, from inside its namespace.
    async fn call(&self) -> Option<TcpStream> {
        let to = self.to;
        let stream = self.inside(move || {
            let stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nonblocking(true).map(|()| stream)
        });
        TcpStream::from_std(stream.await?).ok()
    }

    /// A socket to the endpoint, from inside its namespace.
    async fn open_socket(&self) -> Option<UdpSocket> {
        let to = self.to;
        let socket = self.inside(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_nonblocking(true).map(|()| socket)
        });
        UdpSocket::from_std(socket.await?).ok()
    }

    /// Runs `work` in a thread that enters the namespace and is never used for anything else.
    async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Option<T> {
        let netns = self.netns.clone()?;
        let (done, result) = oneshot::channel();
        let entered = move || enter(&netns).and_then(|()| work());
        // Whoever asked may have gone.
        let thread = thread::Builder::new().name("into-netns".to_owned()).spawn(move || done.send(entered()).is_ok());
        thread.ok()?;
        match result.await.ok()? {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::debug!(to = %self.to, %error, "a call from the host came to nothing");
                None
            }
        }
    }
}

fn enter(netns: &Path) -> io::Result<()> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET).map_err(Into::into)
}
