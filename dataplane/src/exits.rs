//! Carries decisions out: writes each frame into the transmit frames of where it shall go.
//!
//! Every attempt to send ends in one counted place, transmitted, handed over or dropped; that
//! is what keeps the law of [`stats`](crate::stats) true whatever fails.

pub(crate) mod tag;

use std::{net::IpAddr, sync::Arc};

use crate::{
    handover::Mailbox,
    ids::{PortId, VtepId, WorkerId},
    local::{self, Answer},
    neigh::Question,
    port::{PutError, Transmit},
    shortcut::{Exit, Way},
    stats::{Counters, PortCounters},
    tables::{Port, Tables},
    verdict::{Decision, DropReason, Verdict},
    vtep::{
        Flow, OVERHEAD_V6, Template,
        encap::{Headers, HeadersV6},
    },
    wire::{Fragments, Layers, Vni, icmp},
};

/// Where a worker's frames leave.
#[derive(Debug)]
pub(crate) struct Exits<T> {
    pub(crate) me: WorkerId,
    pub(crate) counters: Counters,
    /// The mailboxes of all workers, by [`WorkerId`].
    pub(crate) mail: Arc<[Mailbox]>,
    outlets: Vec<Option<Outlet<T>>>,
    /// The port through which frames for ports without an outlet leave with a tag.
    punt: Option<PortId>,
    /// Ports with frames that have not been submitted.
    dirty: Vec<PortId>,
    /// Workers whose mailbox got something since they were last rung.
    to_ring: Vec<WorkerId>,
    /// Where replies are written; `None` while one is on its way.
    scratch: Option<Box<[u8; icmp::MAX_ERROR]>>,
    /// Where fragments are written; likewise.
    part: Box<[u8]>,
    /// Replies that may still be sent before the next [`tick`](Self::tick).
    replies_left: u32,
}

/// ICMP errors that a worker sends in a tenth of a second (RFC 1812 section 4.3.2.8 wants a limit).
const REPLIES_PER_TICK: u32 = 10;

/// Bytes of the longest fragment: no frame that comes in is longer, and a part is shorter than that.
const LONGEST_PART: usize = 4096;

#[derive(Debug)]
struct Outlet<T> {
    transmit: T,
    dirty: bool,
}

impl<T: Transmit> Exits<T> {
    pub(crate) fn new(me: WorkerId, mail: Arc<[Mailbox]>) -> Self {
        Self {
            me,
            counters: Counters::default(),
            mail,
            outlets: Vec::new(),
            punt: None,
            dirty: Vec::new(),
            to_ring: Vec::new(),
            scratch: Some(Box::new([0; icmp::MAX_ERROR])),
            part: vec![0; LONGEST_PART].into(),
            replies_left: REPLIES_PER_TICK,
        }
    }

    pub(crate) fn open(&mut self, port: PortId, transmit: T) {
        if self.outlets.len() <= port.index() {
            self.outlets.resize_with(port.index() + 1, || None);
        }
        self.admit(port);
        self.outlets[port.index()] = Some(Outlet { transmit, dirty: false });
        // A port is in `dirty` at most once, and a worker in `to_ring`: no growing later.
        self.dirty.reserve(self.outlets.len());
        self.to_ring.reserve(self.mail.len());
    }

    /// Makes room for the counters of `port`.
    pub(crate) fn admit(&mut self, port: PortId) {
        self.counters.make_room(port);
        // A number may have belonged to another port before.
        *self.counters.port(port) = PortCounters::default();
    }

    /// Has frames leave tagged through `punt` that are for ports of the express lane.
    pub(crate) fn tag_through(&mut self, punt: PortId) {
        self.punt = Some(punt);
    }

    pub(crate) fn close(&mut self, port: PortId) -> Option<T> {
        self.dirty.retain(|&dirty| dirty != port);
        self.outlets.get_mut(port.index()).and_then(Option::take).map(|outlet| outlet.transmit)
    }

    pub(crate) fn halves(&mut self) -> impl Iterator<Item = (PortId, &mut T)> {
        let numbered = (0u16..).map(PortId).zip(&mut self.outlets);
        numbered.filter_map(|(port, outlet)| outlet.as_mut().map(|outlet| (port, &mut outlet.transmit)))
    }

    /// Sends `frame` the way that was found for it.
    #[inline(always)]
    pub(crate) fn take_way(&mut self, tables: &Tables, way: &Way, frame: &[u8]) {
        let overlay = &frame[way.start..way.end];
        match way.exit {
            Exit::Port(port) => self.deliver(tables, port, overlay),
            Exit::Tunnel(vtep, vni, flow) => self.forward(tables, vtep, vni, flow, overlay),
        }
    }

    /// The same, out of the way of [`take_way`](Self::take_way).
    #[inline(never)]
    pub(crate) fn take_rare_way(&mut self, tables: &Tables, way: &Way, frame: &[u8]) {
        self.take_way(tables, way, frame);
    }

    /// Carries out one decision about `frame`, which came in at `from`.
    #[inline]
    pub(crate) fn carry_out(&mut self, tables: &Tables, from: PortId, decision: &Decision, frame: &[u8]) {
        match decision.cut_to {
            None => self.carry_out_whole(tables, from, decision, frame),
            Some(mtu) => self.carry_out_cut(tables, from, decision, mtu, frame),
        }
    }

    /// Carries out one decision for each fragment of what it is about.
    #[cold]
    fn carry_out_cut(&mut self, tables: &Tables, from: PortId, decision: &Decision, mtu: u16, frame: &[u8]) {
        let Some(parts) = Fragments::of(&frame[decision.start..decision.end], mtu) else {
            return self.drop(from, DropReason::MtuExceeded);
        };
        let mut room = std::mem::take(&mut self.part);
        let mut count = 0;
        for (head, body) in parts {
            let end = head.len() + body.len();
            count += 1;
            let Some(part) = room.get_mut(..end) else {
                self.drop(from, DropReason::TxTooLong);
                continue;
            };
            part[..head.len()].copy_from_slice(&head);
            part[head.len()..].copy_from_slice(body);
            let of_part = Decision { start: 0, end, cut_to: None, ..*decision };
            self.carry_out_whole(tables, from, &of_part, part);
        }
        self.part = room;
        self.counters.fragmented += 1;
        self.counters.copies += count - 1;
    }

    #[inline(never)]
    fn carry_out_whole(&mut self, tables: &Tables, from: PortId, decision: &Decision, frame: &[u8]) {
        let overlay = &frame[decision.start..decision.end];
        match decision.verdict {
            Verdict::Deliver(port) => self.deliver(tables, port, overlay),
            Verdict::Forward(vtep) => {
                let network = tables.network(decision.network);
                match network {
                    Some(network) => self.forward(tables, vtep, network.vni, decision.flow, overlay),
                    None => self.drop(from, DropReason::PortGone),
                }
            }
            Verdict::Flood => self.flood(tables, from, decision, overlay),
            Verdict::Answer(answer) => self.give(tables, from, answer, frame),
            Verdict::Reply { mtu } => {
                self.reply(tables, from, mtu, frame);
                self.drop(from, DropReason::MtuExceeded);
            }
            Verdict::Refuse { error, from: router, reason } => {
                self.refuse(tables, from, error, router, frame);
                self.drop(from, reason);
            }
            Verdict::HandOver { worker, port } => self.pass_on(worker, port, from, frame),
            Verdict::Hold => self.counters.held += 1,
            Verdict::Drop(reason) => self.drop(from, reason),
        }
    }

    /// Gives `frame`, which came in at `from`, to the worker that is to decide about it as if it
    /// had come in at `port`.
    fn pass_on(&mut self, worker: WorkerId, port: PortId, from: PortId, frame: &[u8]) {
        match self.mail.get(worker.index()) {
            Some(mailbox) if mailbox.pass_on(port, frame) => self.counters.handed_over += 1,
            _ => return self.drop(from, DropReason::HandoverFull),
        }
        self.ring_later(worker);
    }

    fn ring_later(&mut self, worker: WorkerId) {
        if !self.to_ring.contains(&worker) {
            self.to_ring.push(worker);
        }
    }

    /// Counts a frame from `from` that ends.
    #[inline]
    pub(crate) fn drop(&mut self, from: PortId, reason: DropReason) {
        self.counters.drops[reason] += 1;
        self.counters.port(from).rx_drops += 1;
    }

    /// Sends the overlay frame through the tunnel to one VTEP.
    #[inline(always)]
    fn forward(&mut self, tables: &Tables, vtep: VtepId, vni: Vni, flow: Flow, overlay: &[u8]) {
        let Some(vtep) = tables.vtep(vtep) else {
            self.counters.drops[DropReason::PortGone] += 1;
            return;
        };
        match &vtep.template {
            Some(Template::V4(headers)) => self.encap(tables, vtep.uplink, headers, vni, flow, overlay),
            Some(Template::V6(headers)) => self.encap_v6(tables, vtep.uplink, headers, vni, flow, overlay),
            None => self.counters.drops[DropReason::NextHopUnresolved] += 1,
        }
    }

    /// [`encap`](Self::encap) over IPv6, out of the way of IPv4.
    #[inline(never)]
    fn encap_v6(&mut self, tables: &Tables, uplink: PortId, headers: &HeadersV6, vni: Vni, flow: Flow, overlay: &[u8]) {
        self.encap(tables, uplink, headers, vni, flow, overlay);
    }

    /// Sends the overlay frame by `uplink`, behind `headers`.
    #[inline(always)]
    fn encap<H: Headers>(
        &mut self,
        tables: &Tables,
        uplink: PortId,
        headers: &H,
        vni: Vni,
        flow: Flow,
        overlay: &[u8],
    ) {
        let length = H::LEN + overlay.len();
        let Some(transmit) = self.transmit(uplink) else {
            let mut outer = [0; OVERHEAD_V6];
            headers.write(&mut outer[..H::LEN], vni, flow, overlay);
            return self.hand_over(uplink, tables.port(uplink), &outer[..H::LEN], overlay);
        };
        let result = transmit.lend(length).map(|frame| {
            let (outer, body) = frame.split_at_mut(H::LEN);
            headers.write(outer, vni, flow, overlay);
            body.copy_from_slice(overlay);
        });
        self.count_put(uplink, result, length);
    }

    /// One copy to every local port but `from`; from a local port, one to every peer as well.
    #[inline(never)]
    fn flood(&mut self, tables: &Tables, from: PortId, decision: &Decision, overlay: &[u8]) {
        let Some(network) = tables.network(decision.network) else {
            return self.drop(from, DropReason::PortGone);
        };
        let local = network.ports.contains(&from);
        let peers: &[VtepId] = if local { &network.peers } else { &[] };
        let mut sent = 0;
        for &port in network.ports.iter().filter(|&&port| port != from) {
            self.deliver(tables, port, overlay);
            sent += 1;
        }
        for &peer in peers {
            self.forward(tables, peer, network.vni, decision.flow, overlay);
            sent += 1;
        }
        match sent {
            0 => self.drop(from, DropReason::NoReceiver),
            _ => self.counters.copies += sent - 1,
        }
    }

    /// Sends the answer to `frame` back to where it came `from`, in its stead.
    #[inline(never)]
    fn give(&mut self, tables: &Tables, from: PortId, answer: Answer, frame: &[u8]) {
        let mut head = [0; local::MAX_HEAD];
        match answer.write(frame, &mut head) {
            Some((length, rest)) => {
                self.counters.answered += 1;
                self.deliver_parts(tables, from, &head[..length], &frame[rest]);
            }
            None => self.drop(from, DropReason::GatewayUnused),
        }
    }

    /// Sends a question of our own to one station.
    #[cold]
    pub(crate) fn ask(&mut self, tables: &Tables, question: &Question) {
        let mut frame = [0; local::MAX_HEAD];
        let network = tables.network(question.network);
        if let Some(length) = network.and_then(|network| local::write_question(network, question, &mut frame)) {
            self.counters.replies += 1;
            self.deliver(tables, question.port, &frame[..length]);
        }
    }

    fn deliver_parts(&mut self, tables: &Tables, port: PortId, head: &[u8], body: &[u8]) {
        let Some(transmit) = self.transmit(port) else {
            return self.hand_over(port, tables.port(port), head, body);
        };
        let result = transmit.put(head, body);
        self.count_put(port, result, head.len() + body.len());
    }

    /// Tells the sender of `frame` that it was too long, if that may be told.
    #[cold]
    fn reply(&mut self, tables: &Tables, from: PortId, mtu: u16, frame: &[u8]) {
        self.answer(tables, from, |scratch| icmp::too_big(frame, &Layers::walk(frame), mtu, scratch));
    }

    /// Tells the sender of `frame` what `router` has against it, if that may be told.
    #[cold]
    fn refuse(&mut self, tables: &Tables, from: PortId, error: icmp::Error, router: IpAddr, frame: &[u8]) {
        self.answer(tables, from, |scratch| icmp::error(frame, error, router, scratch));
    }

    /// Sends what `write` writes, whose length it returns, back to where it came `from`.
    fn answer(
        &mut self,
        tables: &Tables,
        from: PortId,
        write: impl FnOnce(&mut [u8; icmp::MAX_ERROR]) -> Option<usize>,
    ) {
        if self.replies_left == 0 {
            return;
        }
        let Some(mut scratch) = self.scratch.take() else { return };
        if let Some(length) = write(&mut scratch) {
            self.replies_left -= 1;
            self.counters.replies += 1;
            self.deliver(tables, from, &scratch[..length]);
        }
        self.scratch = Some(scratch);
    }

    /// Allows another tenth of a second's replies, and lets ports do their slow work.
    pub(crate) fn tick(&mut self) {
        self.replies_left = REPLIES_PER_TICK;
        self.halves().for_each(|(_, half)| half.tick());
    }

    /// Sends a copy of `frame` by `port`.
    #[inline(always)]
    fn deliver(&mut self, tables: &Tables, port: PortId, frame: &[u8]) {
        let Some(transmit) = self.transmit(port) else {
            return self.hand_over(port, tables.port(port), &[], frame);
        };
        let result = transmit.put(&[], frame);
        self.count_put(port, result, frame.len());
    }

    /// The transmitting half of a port of ours, which is submitted at the end of the breath.
    #[inline(always)]
    fn transmit(&mut self, port: PortId) -> Option<&mut T> {
        let outlet = self.outlets.get_mut(port.index())?.as_mut()?;
        if !outlet.dirty {
            outlet.dirty = true;
            self.dirty.push(port);
        }
        Some(&mut outlet.transmit)
    }

    #[inline(always)]
    fn count_put(&mut self, port: PortId, result: Result<(), PutError>, length: usize) {
        let counters = &mut self.counters.ports[port.index()];
        match result {
            Ok(()) => {
                counters.tx_packets += 1;
                counters.tx_bytes += length as u64;
                self.counters.transmitted += 1;
            }
            Err(error) => {
                counters.tx_drops += 1;
                self.counters.drops[match error {
                    PutError::Full => DropReason::TxRingFull,
                    PutError::TooLong => DropReason::TxTooLong,
                }] += 1;
            }
        }
    }

    /// Gives `head` + `body` to the worker that has the port, or sends it with a tag.
    #[inline(never)]
    fn hand_over(&mut self, port: PortId, entry: Option<&Port>, head: &[u8], body: &[u8]) {
        if let Some(punt) = self.punt.filter(|_| entry.is_some_and(|entry| entry.express.is_some())) {
            return self.send_tagged(punt, port, head, body);
        }
        let owner = entry.map(|port| port.owner).filter(|&owner| owner != self.me);
        let Some((owner, mailbox)) = owner.and_then(|owner| Some((owner, self.mail.get(owner.index())?))) else {
            self.counters.drops[DropReason::PortGone] += 1;
            return;
        };
        if mailbox.post(port, head, body) {
            self.counters.handed_over += 1;
        } else {
            self.counters.drops[DropReason::HandoverFull] += 1;
        }
        self.ring_later(owner);
    }

    /// Sends `head` + `body` through `punt`, with a tag that says `port`.
    fn send_tagged(&mut self, punt: PortId, port: PortId, head: &[u8], body: &[u8]) {
        let length = head.len() + body.len();
        let result = match self.transmit(punt) {
            Some(transmit) => transmit.lend(tag::length(length)).map(|frame| tag::write(frame, port, head, body)),
            None => Err(PutError::Full),
        };
        self.count_put(port, result, length);
    }

    /// Sends what other workers put into our mailbox; says whether there was anything.
    pub(crate) fn take_over(&mut self) -> bool {
        let mail = Arc::clone(&self.mail);
        let Some(mailbox) = mail.get(self.me.index()) else { return false };
        let mut any = false;
        while let Some(letter) = mailbox.open() {
            any = true;
            self.counters.taken_over += 1;
            match self.transmit(letter.port) {
                Some(transmit) => {
                    let result = transmit.put(&[], &letter.frame);
                    self.count_put(letter.port, result, letter.frame.len());
                }
                None => self.counters.drops[DropReason::PortGone] += 1,
            }
            mailbox.give_back(letter);
        }
        any
    }

    /// Submits every port that has something, and wakes the workers that got mail. Returns
    /// how many frames the kernel has yet to take.
    #[inline]
    pub(crate) fn submit(&mut self) -> usize {
        let mut left = 0;
        let outlets = &mut self.outlets;
        self.dirty.retain(|port| {
            let Some(Some(outlet)) = outlets.get_mut(port.index()) else { return false };
            let waiting = outlet.transmit.submit();
            left += waiting;
            outlet.dirty = waiting > 0;
            outlet.dirty
        });
        for worker in self.to_ring.drain(..) {
            self.mail[worker.index()].ring();
        }
        left
    }
}
