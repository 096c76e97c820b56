//! What becomes of a packet: exactly one [`Verdict`] each, and a name for every drop.

use std::net::IpAddr;

use crate::{
    bridge::Origin,
    ids::{NetworkId, PortId, VtepId, WorkerId},
    local::Answer,
    neigh::Claim,
    vtep::Flow,
    wire::{Ethernet, MacAddr, icmp},
};

/// What the pipeline says shall happen to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The overlay frame leaves by this local port.
    Deliver(PortId),
    /// The overlay frame is encapsulated for this VTEP.
    Forward(VtepId),
    /// A copy leaves by every port of the network but the one it came from and, if it came
    /// from a local port, to every peer of the network.
    Flood,
    /// The frame was a question, and this goes back to where it came in.
    Answer(Answer),
    /// The packet is dropped as too long, and its sender is told the MTU it may use.
    Reply {
        /// Longest packet of the network, in bytes of network layer.
        mtu: u16,
    },
    /// The packet is dropped, and its sender is told why by ICMP, if that may be told.
    Refuse {
        /// What it is told.
        error: icmp::Error,
        /// By whom.
        from: IpAddr,
        /// Why.
        reason: DropReason,
    },
    /// The frame is for another worker to decide about.
    HandOver {
        /// By this one.
        worker: WorkerId,
        /// As if it had come in here.
        port: PortId,
    },
    /// The frame was put by; it will be decided about when the pipeline releases it.
    Hold,
    /// The packet ends here.
    Drop(DropReason),
}

/// A verdict with what is needed to carry it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What shall happen.
    pub verdict: Verdict,
    /// The network of the overlay frame. Meaningless beside [`Verdict::Drop`].
    pub network: NetworkId,
    /// First byte of the overlay frame within the frame that came in.
    pub start: usize,
    /// End of the overlay frame within the frame that came in.
    pub end: usize,
    /// What the outer header repeats of the inner packet.
    pub flow: Flow,
    /// It leaves in fragments of at most so many bytes of network layer.
    pub cut_to: Option<u16>,
}

impl Decision {
    /// Nothing but a drop.
    #[inline]
    pub fn drop(reason: DropReason) -> Self {
        Self {
            verdict: Verdict::Drop(reason),
            network: NetworkId(0),
            start: 0,
            end: 0,
            flow: Flow::default(),
            cut_to: None,
        }
    }

    /// The same for a link of this MTU.
    #[inline]
    #[must_use]
    pub fn cut_to(self, mtu: u16) -> Self {
        let is_long = self.end - self.start > Ethernet::LEN + usize::from(mtu);
        Self { cut_to: is_long.then_some(mtu), ..self }
    }
}

/// What one worker heard that the others need to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A MAC address turned up at a new place.
    Station {
        /// Where the address is known.
        network: NetworkId,
        /// The address.
        mac: MacAddr,
        /// Where it is now.
        origin: Origin,
    },
    /// An endpoint of this host said that an address is its own.
    Neighbour(Claim),
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet ended without leaving. Where the kernel has a name for the same thing
        /// (`include/net/dropreason-core.h`) ours is the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in counters, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// The underlay frame ends before its headers do.
    OuterTruncated = "outer_truncated",
    /// Not UDP to a VTEP address of ours and its port.
    OuterNotOurs = "outer_not_ours",
    /// The outer IP header contradicts itself or the frame.
    OuterBadIpHeader = "outer_bad_ip_header",
    /// The outer IP header checksum is wrong.
    OuterBadIpChecksum = "outer_bad_ip_csum",
    /// A fragment; RFC 7348 section 4.3 lets us discard it.
    OuterFragment = "outer_fragment",
    /// Over IPv6, UDP behind extension headers, which no VTEP sends.
    OuterExtension = "outer_ip6_extension",
    /// The UDP length is shorter than its header or longer than the packet.
    OuterBadUdpLength = "outer_bad_udp_length",
    /// The outer UDP checksum is neither zero nor right.
    OuterBadUdpChecksum = "outer_bad_udp_csum",
    /// Over IPv6 without a UDP checksum, which nobody here asked for (RFC 6935 section 5).
    OuterZeroUdpChecksum = "udp6_zero_csum",
    /// Flag I is not set, or the VXLAN header is cut short.
    VxlanInvalidHeader = "vxlan_invalid_hdr",
    /// No network here has this VNI.
    VxlanVniNotFound = "vxlan_vni_not_found",
    /// The outer source is not a peer of this network.
    PeerNotAllowed = "peer_not_allowed",
    /// The overlay frame is shorter than an Ethernet header.
    InnerTruncated = "inner_truncated",
    /// The overlay frame has a VLAN tag (RFC 7348 section 6.1).
    InnerVlan = "inner_vlan",
    /// The overlay source address is a group, or zero.
    MacInvalidSource = "mac_invalid_source",
    /// An endpoint sent from a MAC address that is not its own.
    SpoofedMac = "spoofed_mac",
    /// An endpoint spoke as an IP address that is not its own.
    SpoofedAddress = "spoofed_address",
    /// The overlay source address belongs to a station that is known to be elsewhere.
    StationElsewhere = "station_elsewhere",
    /// An endpoint sent ARP that is not of the form for IPv4 over Ethernet.
    ArpInvalid = "arp_invalid",
    /// Neighbour discovery that RFC 4861 has its receivers drop.
    NdInvalid = "nd_invalid",
    /// An endpoint advertised itself as a router, or redirected others to one.
    RouterAdvertisement = "router_advertisement",
    /// An endpoint answered DHCP clients.
    DhcpServer = "dhcp_server",
    /// From another host to the gateway, which each host plays for its own endpoints.
    GatewayElsewhere = "gateway_elsewhere",
    /// To the gateway, which has nothing to do with it.
    GatewayUnused = "gateway_unused",
    /// To leave by the gateway as if this host's VTEP had sent it.
    ForgedTunnel = "forged_tunnel",
    /// The answer to a question of ours. It was taken note of, and there is nobody to pass it to.
    AnswerTaken = "answer_taken",
    /// To another endpoint of a network whose endpoints reach the gateway alone.
    Isolated = "isolated",
    /// From this host itself, whose port leads to its own endpoints, to one of another host.
    HostOnlyHere = "host_only_here",
    /// To an address that bridges must not forward: spanning tree, LLDP, pause.
    LinkLocalControl = "link_local_control",
    /// Congestion was marked on the tunnel but the inner transport cannot hear it (RFC 6040).
    TunnelEcn = "ip_tunnel_ecn",
    /// Longer than the MTU of the network.
    MtuExceeded = "mtu_exceeded",
    /// The destination is where it came from.
    SamePort = "same_port",
    /// It came from a tunnel and its destination is behind another.
    SplitHorizon = "split_horizon",
    /// It would be flooded, and its network has had as many floods in this second as it may have.
    FloodLimit = "flood_limit",
    /// It would be flooded, and there is nobody to flood to.
    NoReceiver = "no_receiver",
    /// The next hop to the VTEP has no known MAC address yet.
    NextHopUnresolved = "next_hop_unresolved",
    /// The port it came from or should leave by is being taken away.
    PortGone = "port_gone",
    /// From the express lane to a worker, and the kernel had no memory for the tag.
    NoTag = "no_tag",
    /// In the express lane, and the kernel had no memory for its headers.
    NoHeaders = "no_headers",
    /// Every transmit frame of the port is in use: the other side does not keep up.
    TxRingFull = "tx_ring_full",
    /// With its outer header it does not fit a transmit frame.
    TxTooLong = "tx_too_long",
    /// The worker that owns the port does not keep up.
    HandoverFull = "handover_full",
    /// It would leave its network, which has no way out.
    NoWayOut = "no_way_out",
    /// It would leave its network with a source address that is not of it.
    InvalidSource = "ip_invalid_source",
    /// It would leave its network for an address that no router forwards to.
    InvalidDestination = "ip_invalid_dest",
    /// Its time to live is over.
    TtlExceeded = "ttl_exceeded",
    /// The host has no route to where it is going.
    NoRoute = "ip_outnoroutes",
    /// The host's route to where it is going leads through another device than the uplink.
    RouteElsewhere = "route_elsewhere",
    /// To be translated, but it contradicts itself, or has IP options.
    NatInvalid = "nat_invalid",
    /// To be translated, but neither TCP, UDP, ICMP echo nor an ICMP error.
    NatUnsupported = "nat_unsupported",
    /// It belongs to no session and cannot begin one.
    NatNoSession = "nat_no_session",
    /// From outside, from somebody whom the endpoint has not called (RFC 4787 REQ-8).
    NatFiltered = "nat_filtered",
    /// Every outside port of its kind is lent.
    NatNoPort = "nat_no_port",
    /// There is no room for another session.
    NatTableFull = "nat_table_full",
    /// Its endpoint has as many sessions as one may have.
    NatEndpointLimit = "nat_endpoint_limit",
    /// Its network has as many sessions as one may have.
    NatNetworkLimit = "nat_network_limit",
    /// An ICMP error that is broken, or about nothing that we sent.
    NatIcmpError = "ct_icmp_error_bad",
    /// A fragment whose first fragment did not come, or that there is no room for.
    NatFragment = "nat_fragment",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether whoever sent it pretended to be somebody else.
    pub const fn is_pretence(self) -> bool {
        matches!(
            self,
            Self::SpoofedMac
                | Self::SpoofedAddress
                | Self::StationElsewhere
                | Self::RouterAdvertisement
                | Self::DhcpServer
                | Self::ForgedTunnel
        )
    }
}
