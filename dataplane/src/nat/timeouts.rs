//! How long sessions live without a packet, and what a TCP connection's packets make of it.

use std::time::Duration;

use super::Way;
use crate::{clock::Ticks, wire::tcp};

/// Lifetimes after the last packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP (RFC 4787 REQ-5).
    pub udp: Duration,
    /// ICMP queries (RFC 5508 REQ-2).
    pub icmp: Duration,
    /// TCP, established (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP, not yet established (RFC 5382 REQ-5, RFC 7857 section 2).
    pub tcp_opening: Duration,
    /// TCP, closed by both sides or reset (RFC 7857 section 2).
    pub tcp_closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            tcp_established: Duration::from_secs(7440),
            tcp_opening: Duration::from_secs(240),
            tcp_closing: Duration::from_secs(240),
        }
    }
}

/// The same in ticks, by [`State`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes([u32; State::COUNT]);

impl Lifetimes {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let mut lifetimes = [0; State::COUNT];
        for state in State::ALL {
            lifetimes[state as usize] = ticks(match state {
                State::Udp => timeouts.udp,
                State::Icmp => timeouts.icmp,
                State::OpeningOut | State::OpeningIn => timeouts.tcp_opening,
                State::Established | State::FinOut | State::FinIn => timeouts.tcp_established,
                State::Closed | State::Reset => timeouts.tcp_closing,
            });
        }
        Self(lifetimes)
    }

    /// When a session in `state` ends if nothing comes after `now`.
    #[inline]
    pub(super) fn deadline(&self, state: State, now: Ticks) -> Ticks {
        Ticks(now.0.saturating_add(self.0[state as usize]))
    }
}

fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis() * u128::from(Ticks::PER_SECOND) / 1000;
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

/// Where a session is in its life. For TCP the states of RFC 6146 section 3.5.2.2, to which
/// RFC 7857 section 2 refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// UDP has none.
    Udp,
    /// An ICMP query has none.
    Icmp,
    /// The inside sent a SYN.
    OpeningOut,
    /// The outside sent a SYN.
    OpeningIn,
    /// Both did.
    Established,
    /// The inside has sent its last byte.
    FinOut,
    /// The outside has sent its last byte.
    FinIn,
    /// Both have.
    Closed,
    /// Somebody sent a reset, which may be a forgery: the next packet opens again.
    Reset,
}

impl State {
    /// Every state.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Udp,
        Self::Icmp,
        Self::OpeningOut,
        Self::OpeningIn,
        Self::Established,
        Self::FinOut,
        Self::FinIn,
        Self::Closed,
        Self::Reset,
    ];
    const COUNT: usize = 9;

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp | Self::Icmp => "active",
            Self::OpeningOut | Self::OpeningIn => "opening",
            Self::Established => "established",
            Self::FinOut | Self::FinIn => "half-closed",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }

    /// The state after a TCP segment with `flags` went `way`.
    #[inline]
    pub(super) fn after(self, flags: u8, way: Way) -> Self {
        if flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0 {
            return if self == Self::Reset { Self::Established } else { self };
        }
        self.after_control(flags, way)
    }

    fn after_control(self, flags: u8, way: Way) -> Self {
        if flags & tcp::RST != 0 {
            return if self == Self::Closed { self } else { Self::Reset };
        }
        if flags & tcp::FIN != 0 {
            return match (self, way) {
                (Self::Established | Self::Reset, Way::Out) => Self::FinOut,
                (Self::Established | Self::Reset, Way::In) => Self::FinIn,
                (Self::FinOut, Way::In) | (Self::FinIn, Way::Out) => Self::Closed,
                (other, _) => other,
            };
        }
        match (self, way) {
            (Self::OpeningOut, Way::In) | (Self::OpeningIn, Way::Out) => Self::Established,
            // The same five-tuple is used for a new connection.
            (Self::Closed | Self::Reset, Way::Out) => Self::OpeningOut,
            (Self::Closed | Self::Reset, Way::In) => Self::OpeningIn,
            (other, _) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Closed, Established, FinIn, FinOut, OpeningIn, OpeningOut, Reset};
    use Way::{In, Out};

    /// Segments as `(flags, way)`, and the state after each.
    fn check(first: State, script: &[(u8, Way, State)]) {
        let mut state = first;
        for &(flags, way, expected) in script {
            state = state.after(flags, way);
            assert_eq!(state, expected, "after flags {flags:#x} {way:?} of {script:?}");
        }
    }

    const ACK: u8 = tcp::ACK;
    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
    const FIN_ACK: u8 = tcp::FIN | tcp::ACK;

    #[test]
    fn rfc5382_req2_three_way_handshake_from_either_side() {
        check(OpeningOut, &[(SYN_ACK, In, Established), (ACK, Out, Established)]);
        check(OpeningIn, &[(SYN_ACK, Out, Established), (ACK, In, Established)]);
    }

    #[test]
    fn rfc5382_req2_simultaneous_open() {
        check(OpeningOut, &[(tcp::SYN, In, Established), (SYN_ACK, Out, Established), (SYN_ACK, In, Established)]);
    }

    #[test]
    fn a_retransmitted_syn_changes_nothing() {
        check(OpeningOut, &[(tcp::SYN, Out, OpeningOut), (tcp::SYN, Out, OpeningOut), (SYN_ACK, In, Established)]);
    }

    #[test]
    fn rfc7857_2_1_half_close_stays_established_until_both_sides_have_finished() {
        check(
            Established,
            &[(FIN_ACK, Out, FinOut), (ACK, In, FinOut), (FIN_ACK, In, Closed), (ACK, Out, Closed), (ACK, In, Closed)],
        );
        check(Established, &[(FIN_ACK, In, FinIn), (ACK, Out, FinIn), (FIN_ACK, Out, Closed)]);
    }

    #[test]
    fn rfc7857_2_2_a_reset_is_doubted_and_data_opens_again() {
        check(Established, &[(tcp::RST, In, Reset), (ACK, Out, Established)]);
        check(FinOut, &[(tcp::RST, In, Reset)]);
        check(Closed, &[(tcp::RST, In, Closed)]);
    }

    #[test]
    fn a_syn_after_the_end_opens_anew() {
        check(Closed, &[(tcp::SYN, Out, OpeningOut), (SYN_ACK, In, Established)]);
        check(Reset, &[(tcp::SYN, In, OpeningIn)]);
    }

    #[test]
    fn rfc4787_req5_rfc5382_req5_rfc5508_req2_defaults_are_at_least_what_is_asked() {
        let timeouts = Timeouts::default();
        assert!(timeouts.udp >= Duration::from_secs(300));
        assert!(timeouts.icmp >= Duration::from_secs(60));
        assert!(timeouts.tcp_established >= Duration::from_secs(2 * 3600 + 4 * 60));
        assert!(timeouts.tcp_opening >= Duration::from_secs(240));
        assert!(timeouts.tcp_closing >= Duration::from_secs(240));
    }
}
