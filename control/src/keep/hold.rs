//! `vxlane hold`: a process that has descriptors and does nothing.
//!
//! The daemon starts it and tells it of every descriptor that comes or goes. When the daemon has
//! ended without a word, the next one has some time to come and ask. If none does, the holder
//! leaves every interface as it was found, and ends.
//!
//! A message is a verb and a name: `put` (with a descriptor), `remove`, `give` (answered by one
//! `put` for each, and `end`), `dismiss` (let go of everything: the daemon has detached) and
//! `detach` (the same, and detach).

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{Descriptors, Held, wire};
use crate::host;

/// In the state directory.
const SOCKET: &str = "hold";
/// How long a holder may take to answer.
const ANSWER: i64 = 5;

/// The daemon's side of a holder.
#[derive(Debug)]
pub struct Holder {
    connection: OwnedFd,
}

impl Holder {
    /// The holder that an earlier daemon of the state directory `state` has left.
    ///
    /// # Errors
    /// If it cannot be spoken to, though it is there.
    pub(super) fn connect(state: &Path) -> io::Result<Option<Self>> {
        let connection = seqpacket()?;
        match connect(connection.as_raw_fd(), &UnixAddr::new(&state.join(SOCKET))?) {
            Ok(()) => Ok(Some(Self::over(connection)?)),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn over(connection: OwnedFd) -> io::Result<Self> {
        let patience = TimeVal::seconds(ANSWER);
        setsockopt(&connection, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&connection, sockopt::SendTimeout, &patience)?;
        Ok(Self { connection })
    }

    /// Starts a holder for the state directory `state`, which ends some time after its daemon.
    ///
    /// # Errors
    /// If this program cannot be started again, or the socket not be made.
    pub(super) fn start(state: &Path, patience: Duration) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made here, so that there is nothing to wait for.
        let listener = listener(&path)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("hold").arg("--patience").arg(patience.as_secs().to_string()).arg("--listening").arg(&path);
        command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").process_group(0);
        // It ends after us, or because we say so, and is waited for by whoever inherits it.
        drop(command.spawn()?);
        Self::connect(state)?.ok_or_else(|| io::Error::other("the holder ended at once"))
    }

    /// Everything that it has.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) fn given(&self) -> io::Result<Descriptors> {
        self.say("give", None)?;
        let mut given = Descriptors::new();
        loop {
            match wire::receive(self.as_fd(), MsgFlags::empty())? {
                Some((text, Some(fd))) => drop(given.insert(text, fd)),
                Some((text, None)) if text == "end" => return Ok(given),
                Some((text, None)) => return Err(io::Error::other(format!("the holder said {text:?}"))),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    pub(super) fn put(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.say(&format!("put {name}"), Some(fd))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.say(&format!("remove {name}"), None)
    }

    /// Has it let go of everything and end.
    pub fn dismiss(self) {
        // Until it has gone the name of its socket is taken.
        let gone = self.say("dismiss", None).and_then(|()| wire::receive(self.as_fd(), MsgFlags::empty()));
        if let Err(error) = gone {
            tracing::warn!(%error, "dismissing the holder");
        }
    }

    /// Has it detach everything, and waits until that is done.
    fn detach(self) -> io::Result<()> {
        self.say("detach", None)?;
        wire::receive(self.as_fd(), MsgFlags::empty()).map(drop)
    }

    fn say(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        wire::send(self.as_fd(), text, fd)
    }
}

impl AsFd for Holder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Leaves every interface as it was found that a holder of the state directory `state` keeps
/// attached, and says whether there was a holder.
///
/// # Errors
/// If it does not answer.
pub fn detach(state: &Path) -> io::Result<bool> {
    match Holder::connect(state)? {
        Some(holder) => holder.detach().map(|()| true),
        None => Ok(false),
    }
}

/// Holds until dismissed, or until no daemon has been there for as long as `patience`. Standard
/// input is the socket that `path` is the name of, listening.
///
/// # Errors
/// If it is not, or the system fails.
pub fn serve(path: &Path, patience: Duration) -> io::Result<()> {
    host::lift_descriptor_limit();
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    Server::hold(path.to_owned(), &listener, patience)
}

/// The holder's own side.
struct Server {
    path: PathBuf,
    held: Descriptors,
    daemon: Option<OwnedFd>,
    /// Whether there has been one.
    met: bool,
    alone_since: Instant,
}

/// Whether there is anything left to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Onward {
    Hold,
    End,
}

impl Server {
    fn hold(path: PathBuf, listener: &OwnedFd, patience: Duration) -> io::Result<()> {
        let mut this = Self { path, held: Descriptors::new(), daemon: None, met: false, alone_since: Instant::now() };
        while this.turn(listener, patience)? == Onward::Hold {}
        Ok(())
    }

    /// Waits for one thing to happen and sees to it.
    fn turn(&mut self, listener: &OwnedFd, patience: Duration) -> io::Result<Onward> {
        let left = match self.daemon {
            Some(_) => None,
            None if self.held.is_empty() && self.met => Some(Duration::ZERO),
            None => Some(patience.saturating_sub(self.alone_since.elapsed())),
        };
        if left.is_some_and(|left| left.is_zero()) {
            self.detach();
            return Ok(Onward::End);
        }
        // Rounded up, so as not to wake too early again and again.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
        });
        let watched = self.daemon.as_ref().unwrap_or(listener);
        let mut fds =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => return Ok(Onward::Hold),
            polled => polled?,
        };
        let has_news = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let (visitor, word) = (has_news(&fds[0]), has_news(&fds[1]));
        if self.daemon.is_some() && word {
            return Ok(self.hear(MsgFlags::MSG_DONTWAIT));
        }
        if visitor {
            self.welcome(listener)?;
        }
        Ok(Onward::Hold)
    }

    /// Takes a new daemon, once everything is heard that the last one said.
    fn welcome(&mut self, listener: &OwnedFd) -> io::Result<()> {
        while self.daemon.is_some() && self.hear(MsgFlags::empty()) == Onward::Hold {}
        let accepted = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        self.daemon = Some(wire::own(accepted));
        self.met = true;
        Ok(())
    }

    /// Hears one thing that the daemon says.
    fn hear(&mut self, flags: MsgFlags) -> Onward {
        let Some(daemon) = &self.daemon else { return Onward::Hold };
        let (text, fd) = match wire::receive(daemon.as_fd(), flags) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Onward::Hold,
            // It has ended, and says nothing sensible any more in any case.
            Ok(None) | Err(_) => {
                self.daemon = None;
                self.alone_since = Instant::now();
                return Onward::Hold;
            }
        };
        match (text.split_once(' ').unwrap_or((&text, "")), fd) {
            (("put", name), Some(fd)) => drop(self.held.insert(name.to_owned(), fd)),
            (("remove", name), None) => drop(self.held.remove(name)),
            (("give", ""), None) => self.give(),
            (("dismiss", ""), None) => {
                self.vanish();
                return Onward::End;
            }
            (("detach", ""), None) => {
                self.detach();
                return Onward::End;
            }
            // Of a later version; what it means cannot be guessed.
            _ => {}
        }
        Onward::Hold
    }

    fn give(&self) {
        let Some(daemon) = &self.daemon else { return };
        let given = self.held.iter().try_for_each(|(name, fd)| wire::send(daemon.as_fd(), name, Some(fd.as_fd())));
        // If it does not listen any more, that shows when it is heard next.
        let _ = given.and_then(|()| wire::send(daemon.as_fd(), "end", None));
    }

    /// Leaves every interface as it was found.
    fn detach(&mut self) {
        self.vanish();
        drop(Held::of(std::mem::take(&mut self.held)).detach());
    }

    /// Takes the name away, first of all: nobody is to come any more.
    fn vanish(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn listener(path: &Path) -> io::Result<OwnedFd> {
    let listener = seqpacket()?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&listener, Backlog::new(8)?)?;
    Ok(listener)
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        thread,
    };

    use super::*;

    /// A holder in a thread: one that holds `patience` long.
    struct Rig {
        state: tempfile::TempDir,
        thread: Option<thread::JoinHandle<io::Result<()>>>,
    }

    impl Rig {
        fn start(patience: Duration) -> Self {
            let state = tempfile::tempdir().unwrap();
            let path = state.path().join(SOCKET);
            let listener = listener(&path).unwrap();
            let thread = thread::spawn(move || Server::hold(path, &listener, patience));
            Self { state, thread: Some(thread) }
        }

        fn connect(&self) -> Holder {
            Holder::connect(self.state.path()).unwrap().expect("a holder")
        }

        fn ends(&mut self) {
            self.thread.take().unwrap().join().unwrap().unwrap();
            assert!(Holder::connect(self.state.path()).unwrap().is_none());
        }
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn texts(given: Descriptors) -> Vec<(String, String)> {
        let read = |fd: OwnedFd| {
            let mut text = String::new();
            let mut file = File::from(fd);
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        given.into_iter().map(|(name, fd)| (name, read(fd))).collect()
    }

    fn pair(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn what_one_daemon_puts_the_next_is_given_and_the_last_word_counts() {
        let mut rig = Rig::start(Duration::from_secs(60));
        let first = rig.connect();
        first.put("a", file("one").as_fd()).unwrap();
        first.put("b", file("two").as_fd()).unwrap();
        first.put("a", file("three").as_fd()).unwrap();
        first.put("c/d e", file("four").as_fd()).unwrap();
        first.remove("b").unwrap();
        // It is killed; all it has said still counts.
        drop(first);
        let second = rig.connect();
        assert_eq!(texts(second.given().unwrap()), [pair("a", "three"), pair("c/d e", "four")]);
        assert_eq!(second.given().unwrap().len(), 2, "giving is not giving away");
        assert!(wire::is_connected(&second.as_fd()));
        second.dismiss();
        rig.ends();
    }

    #[test]
    fn a_holder_that_nobody_comes_for_ends() {
        let mut rig = Rig::start(Duration::from_millis(300));
        let start = Instant::now();
        let first = rig.connect();
        first.put("a", file("one").as_fd()).unwrap();
        thread::sleep(Duration::from_millis(600));
        assert_eq!(first.given().unwrap().len(), 1, "it has no limit while a daemon is there");
        drop(first);
        rig.ends();
        assert!(start.elapsed() >= Duration::from_millis(900));
    }
}
