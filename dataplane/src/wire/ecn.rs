//! Explicit congestion notification through a tunnel (RFC 6040).

/// The two ECN bits of an IP header (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not take part.
    NotEct = 0b00,
    /// It takes part; codepoint 1.
    Ect1 = 0b01,
    /// It takes part; codepoint 0.
    Ect0 = 0b10,
    /// A queue on the way was congested.
    Ce = 0b11,
}

impl Ecn {
    /// The mark in the lower two bits of a TOS or traffic class byte.
    #[inline]
    pub fn from_traffic_class(class: u8) -> Self {
        match class & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// `class` with its mark replaced by this one.
    #[inline]
    pub fn in_traffic_class(self, class: u8) -> u8 {
        class & !0b11 | self as u8
    }

    /// What the inner mark becomes when an outer header marked `outer` comes off:
    /// RFC 6040 section 4.2, figure 4. `None` is "drop".
    #[inline]
    pub fn decap(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, _) => Some(Self::NotEct),
            (Self::Ce, _) | (_, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) | (Self::Ect1, _) => Some(Self::Ect1),
            (Self::Ect0, Self::NotEct | Self::Ect0) => Some(Self::Ect0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, row by row: inner mark, then the result for outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn rfc6040_4_2_figure_4() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let figure = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for (inner, results) in figure {
            for (outer, result) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(results) {
                assert_eq!(inner.decap(outer), result, "inner {inner:?}, outer {outer:?}");
            }
        }
    }

    #[test]
    fn the_mark_leaves_the_dscp_alone() {
        assert_eq!(Ecn::Ce.in_traffic_class(0b1011_1000), 0b1011_1011);
        assert_eq!(Ecn::NotEct.in_traffic_class(0xff), 0xfc);
    }
}
