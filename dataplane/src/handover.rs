//! What workers give each other: frames for ports that another one owns, and news of stations.
//!
//! Each worker has one [`Mailbox`]. Frames travel in [`Letter`]s, of which a mailbox has a
//! fixed number: a sender takes a blank one, fills it and posts it; the owner carries it out
//! and puts it back with the blanks. No blank left is a counted drop, so a slow worker costs
//! frames, never memory, and nobody waits for anybody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use crate::{ids::PortId, verdict::News};

/// Frames that may wait for one worker.
const LETTERS: usize = 512;
/// News that may wait for one worker.
const NEWS: usize = 4096;
/// Bytes a letter is made with; longer frames make theirs grow, once.
const LETTER_LEN: usize = 2048;

/// A frame on its way to the worker that owns its port.
#[derive(Debug)]
pub struct Letter {
    /// Where it shall leave, or where it came in if that is yet to be decided.
    pub port: PortId,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// What waits for one worker.
#[derive(Debug)]
pub struct Mailbox {
    letters: ArrayQueue<Letter>,
    /// Frames that the owner is to decide about; the port is where they came in.
    undecided: ArrayQueue<Letter>,
    blanks: ArrayQueue<Letter>,
    news: ArrayQueue<News>,
    /// News were lost: what the owner learned from us may be stale.
    missed: AtomicBool,
    sleeping: AtomicBool,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// An empty mailbox, for the worker that `waker` wakes.
    pub fn new(waker: Arc<Waker>) -> Self {
        let blanks = ArrayQueue::new(LETTERS);
        for _ in 0..LETTERS {
            // The queue was made for exactly this many.
            let _ = blanks.push(Letter { port: PortId(0), frame: Vec::with_capacity(LETTER_LEN) });
        }
        Self {
            letters: ArrayQueue::new(LETTERS),
            undecided: ArrayQueue::new(LETTERS),
            blanks,
            news: ArrayQueue::new(NEWS),
            missed: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker,
        }
    }

    /// Posts the frame `head` + `body`; `false` if there was no blank letter.
    #[must_use]
    pub fn post(&self, port: PortId, head: &[u8], body: &[u8]) -> bool {
        // There are as many places as letters, so the push cannot fail.
        self.write(port, head, body).is_some_and(|letter| self.letters.push(letter).is_ok())
    }

    /// Has the owner decide about `frame`, which came in at `port`; `false` if there was no blank
    /// letter.
    #[must_use]
    pub fn pass_on(&self, port: PortId, frame: &[u8]) -> bool {
        self.write(port, &[], frame).is_some_and(|letter| self.undecided.push(letter).is_ok())
    }

    fn write(&self, port: PortId, head: &[u8], body: &[u8]) -> Option<Letter> {
        let mut letter = self.blanks.pop()?;
        letter.port = port;
        letter.frame.clear();
        letter.frame.extend_from_slice(head);
        letter.frame.extend_from_slice(body);
        Some(letter)
    }

    /// Tells the owner where a station is. If that cannot be told, the owner will be told to
    /// forget what it learned: flooding is slow, a stale entry would be wrong.
    pub fn tell(&self, news: News) {
        if self.news.push(news).is_err() {
            // Relaxed: ordered by the fence in `ring` or read late, which only delays the flush.
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Wakes the owner if it sleeps. Call it once after a burst of posts.
    pub fn ring(&self) {
        // Pairs with the fence in `fall_asleep`: either the owner's last look sees what was
        // posted before this fence, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::Relaxed) {
            // A waker whose poll is gone belongs to a worker that has ended.
            let _ = self.waker.wake();
        }
    }

    /// The owner's next letter.
    pub fn open(&self) -> Option<Letter> {
        self.letters.pop()
    }

    /// The next frame that the owner is to decide about.
    pub fn open_undecided(&self) -> Option<Letter> {
        self.undecided.pop()
    }

    /// Gives a letter back once its frame is on its way.
    pub fn give_back(&self, letter: Letter) {
        // It came from this mailbox, so its place is free.
        let _ = self.blanks.push(letter);
    }

    /// The owner's next piece of news.
    pub fn hear(&self) -> Option<News> {
        self.news.pop()
    }

    /// Whether news were lost since this was last asked.
    pub fn missed_news(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Says that the owner is about to sleep; `false` if something waits, and it must not.
    pub fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        let empty = self.letters.is_empty() && self.undecided.is_empty() && self.news.is_empty();
        if !empty {
            self.wake_up();
        }
        empty
    }

    /// Says that the owner is awake.
    pub fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}
