//! The two halves of an AF_XDP queue: nothing is lost, nothing is changed, nothing leaks.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use rig::*;
use std::{thread, time::Duration};
use vxlane_dataplane::{
    attach::{AttachMode, Role, Steer},
    link::Link,
    port::{
        BURST, PutError, Receive, Transmit,
        xdp::{BindMode, Config, Kept, OpenError, XdpReceive, XdpSocket, XdpTransmit},
    },
};

/// Both halves of queue 0 in one namespace, and what feeds them.
fn open(namespace: &Namespace) -> (Steer, XdpReceive, XdpTransmit) {
    namespace.inside(|| {
        let mut steer = Steer::load().expect("load");
        let attached = steer.attach(VETH, Role::Access, AttachMode::Auto, 1).expect("attach");
        let (rx, tx) = XdpSocket::open(&Config::new(VETH, 0)).expect("open");
        steer.serve(attached.ifindex, 0, rx.socket()).expect("serve");
        (steer, rx, tx)
    })
}

#[test]
fn ten_thousand_sent_frames_arrive_complete_and_in_order() {
    let rig = Rig::new();
    let (_steer, _rx, mut tx) = open(&rig.near);
    let mut far = rig.far.packets(VETH);
    let mut next = 0;
    while next < 10_000 {
        let burst: Vec<_> = (next..next + 50).map(|n| frame(n, 60 + n as usize % 1455)).collect();
        for frame in &burst {
            let (head, body) = frame.split_at(50);
            tx.put(head, body).expect("a free frame");
        }
        eventually("the kernel takes them", || tx.submit() == 0);
        for sent in &burst {
            assert_eq!(far.receive(&sent[..18]).as_ref(), Some(sent));
        }
        next += 50;
    }
    let census = tx.census();
    assert_eq!((census.kernel, census.ours), (0, census.total));
}

#[test]
fn every_frame_is_accounted_for_after_a_hundred_thousand() {
    let rig = Rig::new();
    let (_near, mut near_rx, mut tx) = open(&rig.near);
    let (_far, mut rx, mut far_tx) = open(&rig.far);
    let (mut sent, mut received) = (0_u32, 0_u32);
    let mut idle = 0;
    while received < 100_000 && idle < 400 {
        while sent < 100_000 && sent - received < 200 {
            match tx.put(&frame(sent, 64), &[]) {
                Ok(()) => sent += 1,
                Err(error) => {
                    assert_eq!(error, PutError::Full);
                    break;
                }
            }
        }
        tx.submit();
        let count = rx.take();
        for index in 0..count {
            assert_eq!(rx.frame(index), frame(received, 64), "frame {received}");
            received += 1;
        }
        for census in [tx.census(), rx.census()] {
            assert_eq!(census.kernel + census.ours, census.total);
        }
        rx.release();
        idle = if count == 0 { idle + 1 } else { 0 };
        if count == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!((sent, received), (100_000, 100_000), "{:?}", rx.kernel_drops());
    assert_eq!(rx.kernel_drops(), Default::default());
    let census = tx.census();
    assert_eq!((census.kernel, census.ours), (0, 1024));
    let census = rx.census();
    assert_eq!(census.kernel + census.ours, 1024);
    assert!(census.ours <= BURST, "all but what the fill ring had no room for: {census:?}");
    assert_eq!(near_rx.census().kernel, 1024);
    assert_eq!(far_tx.census().ours, 1024);
}

#[test]
fn a_stalled_receiver_costs_counted_frames_and_then_goes_on() {
    let rig = Rig::new();
    let (_near, _near_rx, mut tx) = open(&rig.near);
    let (_far, mut rx, _far_tx) = open(&rig.far);
    let mut sent = 0_u64;
    for _ in 0..30 {
        for _ in 0..100 {
            tx.put(&frame(7, 64), &[]).expect("a free frame");
            sent += 1;
        }
        eventually("the kernel takes them", || tx.submit() == 0);
        thread::sleep(Duration::from_millis(1));
    }
    let mut received = 0;
    eventually("every frame is received or counted", || {
        received += rx.take() as u64;
        rx.release();
        let drops = rx.kernel_drops();
        received + drops.rx_dropped + drops.rx_ring_full == sent
    });
    assert_eq!(received, 1024, "what there were frames for, and no more");
    tx.put(&frame(8, 64), &[]).expect("a free frame");
    tx.submit();
    eventually("a new frame", || rx.take() == 1);
    assert_eq!(rx.frame(0), frame(8, 64));
    let census = rx.census();
    assert_eq!(census.kernel + census.ours, census.total);
}

#[test]
fn a_full_transmit_half_says_so_and_an_overlong_frame_takes_no_place() {
    let rig = Rig::new();
    let (_steer, _rx, mut tx) = open(&rig.near);
    assert_eq!(tx.put(&[0; 50], &[0; 1999]), Err(PutError::TooLong));
    assert_eq!(tx.census().ours, 1024);
    for number in 0..1024 {
        assert_eq!(tx.put(&frame(number, 60), &[]), Ok(()));
    }
    assert_eq!(tx.put(&frame(0, 60), &[]), Err(PutError::Full));
    eventually("the kernel takes all", || tx.submit() == 0);
    assert_eq!(tx.put(&frame(0, 60), &[]), Ok(()));
}

#[test]
fn a_queue_can_be_opened_again_as_soon_as_it_is_closed() {
    let rig = Rig::new();
    for _ in 0..10 {
        let (_steer, mut rx, _tx) = open(&rig.near);
        rig.far.packets(VETH).send(&frame(1, 60));
        eventually("the frame", || rx.take() == 1);
    }
}

#[test]
fn a_queue_in_use_is_refused_by_name() {
    let rig = Rig::new();
    let (_steer, _rx, _tx) = open(&rig.near);
    let error = rig.near.inside(|| XdpSocket::open(&Config::new(VETH, 0))).expect_err("busy");
    assert!(error.to_string().contains("veth0 queue 0"), "{error}");
    assert!(matches!(error, OpenError::Socket { .. }), "{error:?}");
}

#[test]
fn zero_copy_is_refused_where_the_driver_has_none_and_auto_copies() {
    let rig = Rig::new();
    let config = Config { bind: BindMode::ZeroCopy, ..Config::new(VETH, 0) };
    assert!(rig.near.inside(|| XdpSocket::open(&config)).is_err());
    let (_steer, rx, _tx) = open(&rig.near);
    assert!(!rx.zero_copy());
}

#[test]
fn a_large_mtu_is_met_with_large_frames() {
    let rig = Rig::new();
    for namespace in [&rig.near, &rig.far] {
        namespace.ip(&format!("link set {VETH} mtu 3500"));
    }
    let (_steer, mut rx, _tx) = open(&rig.near);
    let sent = frame(1, 3514);
    rig.far.packets(VETH).send(&sent);
    eventually("the frame", || rx.take() == 1);
    assert_eq!(rx.frame(0), sent);
}

#[test]
fn a_queue_is_gone_on_with_where_its_owner_stopped() {
    let rig = Rig::new();
    let (mut near, mut rx, mut tx) = open(&rig.near);
    let (_far, mut far_rx, _far_tx) = open(&rig.far);
    let mut far = rig.far.packets(VETH);
    // All places of all rings are used up once, so that the indices are past the first round.
    for number in 0..1100 {
        far.send(&frame(number, 60));
        eventually("the frame", || rx.take() == 1);
        rx.release();
        tx.put(&frame(number, 60), &[]).expect("a free frame");
        eventually("the kernel takes it", || tx.submit() == 0);
        far_rx.take();
        far_rx.release();
    }
    far.send(&frame(1, 60));
    eventually("the frame", || rx.take() == 1);
    let kept = rx.keep().expect("descriptors");
    // Now three frames are with the receiving owner, and it ends.
    far.send(&frame(2, 60));
    far.send(&frame(3, 60));
    eventually("the frames", || rig.near.inside(|| near.counters().expect("counters").redirected) >= 1103);
    drop((rx, tx));
    far.send(&frame(4, 60));

    let label = kept.label();
    assert_eq!(label, "1024.1024.2048");
    let kept = Kept::from_label(&label, kept.socket, kept.frames).expect("its own label");
    let (mut rx, mut tx) = rig.near.inside(|| XdpSocket::resume(kept, VETH)).expect("resume");
    eventually("what had come meanwhile", || rx.take() == 3);
    for (index, number) in (2..5).enumerate() {
        assert_eq!(rx.frame(index), frame(number, 60));
    }
    rx.release();
    assert_eq!(tx.census().ours, 1024, "nothing was on its way");
    let census = rx.census();
    assert_eq!((census.kernel + census.ours, census.total), (1024, 1024));
    // Every frame is used a few times: none is lost, none is in two places.
    for number in 0..2100 {
        let (out, back) = (frame(number, 1500), frame(number + 100_000, 1500));
        far.send(&back);
        tx.put(&out, &[]).expect("a free frame");
        tx.submit();
        eventually("the frame", || rx.take() == 1);
        assert_eq!(rx.frame(0), back);
        rx.release();
        eventually("the frame over there", || far_rx.take() == 1);
        assert_eq!(far_rx.frame(0), out);
        far_rx.release();
    }
    let lost = |rx: &mut XdpReceive| {
        thread::sleep(Duration::from_millis(100));
        rx.tick();
        rx.census().ours
    };
    eventually("the frame that the last owner held is ours again", || lost(&mut rx) >= 1);
    rx.take();
    rx.release();
    let census = rx.census();
    assert_eq!((census.kernel, census.ours), (1024, 0));
    near.detach(rig.near.inside(|| Link::get(VETH)).expect("link").index).expect("detach");
}
