//! Who asked, when a proxy stands in between. A header is a claim of whoever sent it, so it counts
//! only as far as the chain of hops that we were told to trust reaches: from the connection's own
//! peer backwards, never from the left. Pure.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, header};

/// De facto, and what every common ingress sets (and strips when it comes from outside).
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Hops that are looked at, beginning at ours. No real chain is as long.
const MOST_HOPS: usize = 32;

/// The client's address, among a request's extensions: `Extension(ClientAddr)` in a handler. The
/// peer's unless a trusted proxy said otherwise. For logs and limits; whoever is answered or called
/// back is still [`crate::server::PeerAddr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// Networks whose word on the client is taken. Empty: nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A network in CIDR notation: `10.42.0.0/16`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// IPv4 as IPv4-mapped IPv6, so that there is one kind of comparison.
    bits: u128,
    mask: u128,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNetworkError {
    /// Not an address.
    #[error("`{0}` is no address; write networks as 10.42.0.0/16 or fd00::/8, with commas between")]
    Address(String),
    /// Not a length.
    #[error("`{0}` has no prefix length that fits its address; write 10.42.0.0/16 or fd00::/8")]
    Length(String),
    /// Bits behind the prefix: which network is meant is unclear.
    #[error("`{0}` has bits behind its prefix; write the network's first address")]
    HostBits(String),
}

impl TrustedProxies {
    /// Whether the address is a trusted proxy's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = bits_of(address);
        self.0
            .iter()
            .any(|network| bits & network.mask == network.bits)
    }

    /// The client behind `peer`: the right-most hop that is not a trusted proxy itself, as far as
    /// the hops can be read. What stands left of it is its claim, and ignored.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        for hop in hops(headers).take(MOST_HOPS) {
            let Some(address) = hop else {
                // Written by a trusted proxy, yet no address: the last one known has to do.
                return client;
            };
            client = address;
            if !self.contains(client) {
                return client;
            }
        }
        client
    }
}

impl FromStr for TrustedProxies {
    type Err = ParseNetworkError;

    /// Networks with commas between; nothing at all is nobody.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let networks = text.split(',').filter(|text| !text.trim().is_empty());
        networks.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(ParseNetworkError::Address(text.to_owned()));
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            Some(length) => length
                .parse::<u32>()
                .ok()
                .filter(|length| *length <= width)
                .ok_or_else(|| ParseNetworkError::Length(text.to_owned()))?,
        };
        // Of an IPv4 network the mapped prefix counts too: `0.0.0.0/0` holds no IPv6 address.
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        let bits = bits_of(address);
        if bits & mask != bits {
            return Err(ParseNetworkError::HostBits(text.to_owned()));
        }
        Ok(Self { bits, mask })
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The hops, nearest first; `None` for one that cannot be read. `Forwarded` is looked at only where
/// there is no `X-Forwarded-For`: a proxy that writes one of them may hand the other through from
/// the client.
fn hops(headers: &HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + '_> {
    if headers.contains_key(X_FORWARDED_FOR) {
        let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
        return Box::new(
            values
                .flat_map(|value| value.to_str().unwrap_or("?").rsplit(','))
                .map(|hop| read_address(hop.trim())),
        );
    }
    let values = headers.get_all(header::FORWARDED).iter().rev();
    Box::new(
        values
            .flat_map(|value| value.to_str().unwrap_or("?").rsplit(','))
            .map(read_element),
    )
}

/// `for=192.0.2.60;proto=http` of RFC 7239. Names that proxies make up (`_hidden`, `unknown`) are
/// no addresses.
fn read_element(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| read_address(value))?
    })
}

/// An address with or without a port, IPv6 with or without brackets.
fn read_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted(networks: &str) -> TrustedProxies {
        networks.parse().unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn client(networks: &str, peer: &str, lines: &[(&'static str, &str)]) -> String {
        trusted(networks)
            .client(peer.parse().unwrap(), &headers(lines))
            .to_string()
    }

    const XFF: &str = "x-forwarded-for";
    const PODS: &str = "10.42.0.0/16,fd00::/8";

    #[test]
    fn bad_input_39_only_a_trusted_peer_is_believed() {
        let line = [(XFF, "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        for (networks, peer, expected) in [
            ("", "10.42.0.9", "10.42.0.9"),
            (PODS, "10.43.0.9", "10.43.0.9"),
            (PODS, "fe80::1", "fe80::1"),
            (PODS, "10.42.0.9", "1.2.3.4"),
            (PODS, "::ffff:10.42.0.9", "1.2.3.4"),
            (PODS, "fd12::1", "1.2.3.4"),
            ("10.42.0.9", "10.42.0.9", "1.2.3.4"),
            ("10.42.0.8", "10.42.0.9", "10.42.0.9"),
            ("0.0.0.0/0", "fd12::1", "fd12::1"),
            ("::/0", "fd12::1", "1.2.3.4"),
        ] {
            assert_eq!(client(networks, peer, &line), expected, "{networks} {peer}");
        }
    }

    #[test]
    fn bad_input_39_the_right_most_untrusted_hop_is_the_client_and_what_it_claims_is_ignored() {
        for (lines, expected) in [
            // A client that forges: the proxy appended where it really came from.
            (vec![(XFF, "127.0.0.1, 9.9.9.9")], "9.9.9.9"),
            (vec![(XFF, "9.9.9.9, 10.42.1.1, 10.42.2.2")], "9.9.9.9"),
            (
                vec![(XFF, "6.6.6.6"), (XFF, "9.9.9.9,10.42.1.1")],
                "9.9.9.9",
            ),
            // Nobody but proxies: the farthest of them asked.
            (vec![(XFF, "10.42.3.3, 10.42.1.1")], "10.42.3.3"),
            (vec![], "10.42.0.9"),
            (vec![(XFF, "")], "10.42.0.9"),
            // Ports, brackets, IPv6.
            (vec![(XFF, "9.9.9.9:1234")], "9.9.9.9"),
            (vec![(XFF, "2001:db8::7")], "2001:db8::7"),
            (vec![(XFF, "[2001:db8::7]")], "2001:db8::7"),
            (vec![(XFF, "[2001:db8::7]:443")], "2001:db8::7"),
            (vec![(XFF, "::ffff:9.9.9.9")], "9.9.9.9"),
            // Unreadable: as far as it can be read.
            (vec![(XFF, "9.9.9.9, unknown")], "10.42.0.9"),
            (vec![(XFF, "9.9.9.9, 999.1.1.1, 10.42.1.1")], "10.42.1.1"),
            (vec![(XFF, "9.9.9.9,,10.42.1.1")], "10.42.1.1"),
            (vec![(XFF, "1.2.3.4\t")], "1.2.3.4"),
            (vec![("forwarded", "for=9.9.9.9")], "9.9.9.9"),
            (
                vec![(
                    "forwarded",
                    "for=6.6.6.6, For=\"[2001:db8::7]:47\";proto=http;by=_x",
                )],
                "2001:db8::7",
            ),
            (
                vec![("forwarded", "for=9.9.9.9, for=10.42.1.1;host=a")],
                "9.9.9.9",
            ),
            (vec![("forwarded", "for=_hidden")], "10.42.0.9"),
            (vec![("forwarded", "proto=https")], "10.42.0.9"),
            // The ingress wrote one of them, the client the other.
            (
                vec![("forwarded", "for=6.6.6.6"), (XFF, "9.9.9.9")],
                "9.9.9.9",
            ),
        ] {
            assert_eq!(client(PODS, "10.42.0.9", &lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_chain_is_followed_only_so_far() {
        let near = vec!["10.42.1.1"; MOST_HOPS].join(",");
        let line = format!("9.9.9.9,{near}");
        assert_eq!(client(PODS, "10.42.0.9", &[(XFF, &line)]), "10.42.1.1");
        let line = line.replacen(",10.42.1.1", "", 1);
        assert_eq!(client(PODS, "10.42.0.9", &[(XFF, &line)]), "9.9.9.9");
    }

    #[test]
    fn networks_that_are_none_say_what_to_write() {
        let error = |text: &str| text.parse::<TrustedProxies>().unwrap_err().to_string();
        for text in ["/8", "ten", "10.42.0.0.0/16", "traefik", "[::1]/128"] {
            assert!(error(text).contains("is no address"), "{text}");
        }
        for text in ["10.42.0.0/33", "10.42.0.0/", "fd00::/129", "10.0.0.0/-1"] {
            assert!(error(text).contains("prefix length"), "{text}");
        }
        for text in ["10.42.0.1/16", "fd00::1/8", "1.0.0.0/0"] {
            assert!(error(text).contains("bits behind"), "{text}");
        }
        for text in [
            "",
            " , ",
            "10.42.0.0/16,fd00::/8",
            "0.0.0.0/0",
            "::/0",
            "10.42.0.7",
            " fd00::/8 ",
        ] {
            assert!(text.parse::<TrustedProxies>().is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn bad_input_39_no_header_makes_an_untrusted_peer_another(
            lines in proptest::collection::vec("[ -~]{0,60}", 0..5),
            peer in any::<[u8; 4]>(),
        ) {
            let mut map = HeaderMap::new();
            for line in &lines {
                map.append(XFF, line.parse().unwrap());
                map.append("forwarded", line.parse().unwrap());
            }
            let peer = IpAddr::from(peer);
            prop_assume!(!trusted(PODS).contains(peer));
            prop_assert_eq!(trusted(PODS).client(peer, &map), peer);
            // A trusted one is at worst the client itself.
            let proxy: IpAddr = "10.42.0.9".parse().unwrap();
            trusted(PODS).client(proxy, &map);
        }
    }
}
