//! A port without a kernel: two queues of byte vectors, for tests, the simulation and the
//! benchmarks that leave I/O out.

use std::{
    collections::VecDeque,
    os::fd::RawFd,
    sync::{Arc, Mutex, PoisonError},
};

use super::{BURST, Census, KernelDrops, PutError, Receive, Transmit};

/// The far side of a memory port: what a cable is plugged into.
#[derive(Clone, Debug, Default)]
pub struct Cable {
    inbound: Arc<Mutex<VecDeque<Vec<u8>>>>,
    outbound: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Cable {
    /// A port with `depth` transmit frames of `frame_len` bytes, and the cable to reach it by.
    pub fn plug(depth: usize, frame_len: usize) -> (MemoryReceive, MemoryTransmit, Self) {
        let cable = Self::default();
        let receive = MemoryReceive { queue: Arc::clone(&cable.inbound), held: Vec::with_capacity(BURST) };
        let transmit = MemoryTransmit { queue: Arc::clone(&cable.outbound), waiting: Vec::new(), depth, frame_len };
        (receive, transmit, cable)
    }

    /// Sends a frame into the port.
    pub fn send(&self, frame: Vec<u8>) {
        lock(&self.inbound).push_back(frame);
    }

    /// Takes the next frame that came out of the port.
    pub fn receive(&self) -> Option<Vec<u8>> {
        lock(&self.outbound).pop_front()
    }

    /// Takes every frame that came out of the port.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        lock(&self.outbound).drain(..).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A queue of frames is whole between any two operations, also if one of them panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receiving half of a memory port.
#[derive(Debug)]
pub struct MemoryReceive {
    queue: Arc<Mutex<VecDeque<Vec<u8>>>>,
    held: Vec<Vec<u8>>,
}

impl Receive for MemoryReceive {
    fn take(&mut self) -> usize {
        let mut queue = lock(&self.queue);
        let count = queue.len().min(BURST);
        self.held.extend(queue.drain(..count));
        count
    }

    fn frame(&mut self, index: usize) -> &mut [u8] {
        &mut self.held[index]
    }

    fn release(&mut self) {
        self.held.clear();
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::default()
    }

    fn census(&mut self) -> Census {
        Census { total: self.held.len(), kernel: 0, ours: self.held.len() }
    }
}

/// The transmitting half of a memory port.
#[derive(Debug)]
pub struct MemoryTransmit {
    queue: Arc<Mutex<VecDeque<Vec<u8>>>>,
    waiting: Vec<Vec<u8>>,
    depth: usize,
    frame_len: usize,
}

impl Transmit for MemoryTransmit {
    fn lend(&mut self, length: usize) -> Result<&mut [u8], PutError> {
        if length > self.frame_len {
            return Err(PutError::TooLong);
        }
        if self.waiting.len() >= self.depth {
            return Err(PutError::Full);
        }
        Ok(self.waiting.push_mut(vec![0; length]))
    }

    fn submit(&mut self) -> usize {
        lock(&self.queue).extend(self.waiting.drain(..));
        0
    }

    fn census(&mut self) -> Census {
        Census { total: self.depth, kernel: 0, ours: self.depth }
    }
}
