//! Who a request comes from: behind trusted proxies, the last address in `X-Forwarded-For` that is not a trusted proxy.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderValue};
use prometheus_client::metrics::counter::Counter;
use tracing::warn;

use crate::config::IpNetwork;

/// Characters of an unreadable entry that are logged.
const ENTRY_CHARS_SHOWN: usize = 64;

/// Who a request comes from. Shown as the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// The client itself.
    Known(IpAddr),
    /// A trusted proxy that names nobody before it. It speaks for everybody.
    Proxy(IpAddr),
    /// A trusted proxy that names somebody before it in a form that cannot be read.
    Unreadable(IpAddr),
}

impl Client {
    /// Returns what counts as one address: of IPv6 the /64, which one household or phone has to itself. All whom a proxy names
    /// unreadably count as one address, the proxy's: else writing nonsense would be a way around the limit. Returns `None` if
    /// the address is not counted.
    pub(super) fn counted(self) -> Option<IpAddr> {
        match self {
            Self::Known(IpAddr::V6(address)) => {
                Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into())
            }
            Self::Known(address) | Self::Unreadable(address) => Some(address),
            Self::Proxy(_) => None,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Known(address) | Self::Proxy(address) | Self::Unreadable(address)) = self;
        address.fmt(f)
    }
}

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Debug)]
pub(super) struct TrustedProxies {
    networks: Vec<IpNetwork>,
    unreadable: Counter,
    has_warned: AtomicBool,
}

impl TrustedProxies {
    /// Counts in `unreadable` the requests whose client cannot be told.
    pub(super) const fn new(networks: Vec<IpNetwork>, unreadable: Counter) -> Self {
        Self { networks, unreadable, has_warned: AtomicBool::new(false) }
    }

    /// Returns who a request of `peer` with these headers comes from.
    pub(super) fn client(&self, headers: &HeaderMap, peer: IpAddr) -> Client {
        let mut client = peer.to_canonical();
        let forwarded = headers.get_all("x-forwarded-for");
        // As bytes: a client may put anything before a proxy's entry, and must not hide that entry.
        let lists = forwarded.iter().rev().map(HeaderValue::as_bytes);
        let entries = lists.flat_map(|list| list.rsplit(|byte| *byte == b','));
        // An empty element of a list is none (RFC 9110, section 5.6.1.2).
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            if !self.trusts(client) {
                return Client::Known(client);
            }
            let Some(address) = str::from_utf8(entry).ok().and_then(address_of) else {
                self.note_unreadable(client, entry);
                return Client::Unreadable(client);
            };
            client = address.to_canonical();
        }
        if self.trusts(client) { Client::Proxy(client) } else { Client::Known(client) }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    fn note_unreadable(&self, proxy: IpAddr, entry: &[u8]) {
        self.unreadable.inc();
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let entry: String =
                String::from_utf8_lossy(entry).chars().take(ENTRY_CHARS_SHOWN).collect();
            warn!(%proxy, ?entry, "X-Forwarded-For of a trusted proxy names no address: all such clients count as one");
        }
    }
}

/// Returns the address of an entry, as proxies write it: with or without a port, brackets and quotes.
fn address_of(entry: &str) -> Option<IpAddr> {
    let unquoted = entry.strip_prefix('"').and_then(|entry| entry.strip_suffix('"'));
    let entry = unquoted.unwrap_or(entry).trim();
    let bracketed = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => entry
            .parse()
            .ok()
            .or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> Client {
        let trusted = ["127.0.0.1", "::ffff:10.0.0.1", "172.16.0.0/12", "2001:db8:ffff::1"];
        let networks = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append("x-forwarded-for", list.parse().unwrap());
        }
        let proxies = TrustedProxies::new(networks, Counter::default());
        let client = proxies.client(&headers, peer.parse().unwrap());
        assert_eq!(proxies.unreadable.get() == 1, matches!(client, Client::Unreadable(_)));
        client
    }

    fn known(address: &str) -> Client {
        Client::Known(address.parse().unwrap())
    }

    #[test]
    fn only_what_a_trusted_proxy_added_is_believed() {
        let proxy = Client::Proxy("127.0.0.1".parse().unwrap());
        assert_eq!(client("127.0.0.1", &[]), proxy);
        assert_eq!(client("127.0.0.1", &["1.2.3.4"]), known("1.2.3.4"));
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 1.2.3.4"]),
            known("1.2.3.4"),
            "6.6.6.6 is forged"
        );
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "1.2.3.4,10.0.0.1"]), known("1.2.3.4"));
        assert_eq!(client("127.0.0.1", &["1.2.3.4, 172.20.0.9", "10.0.0.1"]), known("1.2.3.4"));
        assert_eq!(client("5.5.5.5", &["1.2.3.4"]), known("5.5.5.5"), "nobody trusts 5.5.5.5");
        assert_eq!(client("5.5.5.5", &["nonsense"]), known("5.5.5.5"));
        assert_eq!(
            client("127.0.0.1", &["\u{ff}, 1.2.3.4"]),
            known("1.2.3.4"),
            "bytes beyond ASCII hide nothing"
        );
    }

    #[test]
    fn an_address_is_the_same_in_every_notation() {
        for entry in [
            "1.2.3.4",
            "1.2.3.4:5678",
            "::ffff:1.2.3.4",
            "[::ffff:1.2.3.4]",
            "[::ffff:1.2.3.4]:5678",
            "\"1.2.3.4\"",
            "\"1.2.3.4:5678\"",
            "\" 1.2.3.4 \"",
            "  1.2.3.4\t",
            "1.2.3.4,",
            "1.2.3.4, ,",
            ",1.2.3.4, , 10.0.0.1:80 ,",
            "nonsense, 1.2.3.4:5678",
        ] {
            assert_eq!(client("127.0.0.1", &[entry]), known("1.2.3.4"), "{entry}");
        }
        for entry in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443", "\"[2001:db8::1]:443\""]
        {
            assert_eq!(client("127.0.0.1", &[entry]), known("2001:db8::1"), "{entry}");
        }
        assert_eq!(client("127.0.0.1", &["1.2.3.4", "", ","]), known("1.2.3.4"), "empty lines");
        assert_eq!(client("::ffff:5.5.5.5", &[]), known("5.5.5.5"));
        assert_eq!(client("::ffff:127.0.0.1", &["1.2.3.4"]), known("1.2.3.4"));
        assert_eq!(
            client("10.0.0.1", &["1.2.3.4"]),
            known("1.2.3.4"),
            "trusted as ::ffff:10.0.0.1"
        );
        assert_eq!(client("2001:db8:ffff::1", &["1.2.3.4, ::ffff:10.0.0.1"]), known("1.2.3.4"));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_no_way_around_the_limit() {
        for entry in [
            "unknown",
            "_hidden",
            "1.2.3.4:99999",
            "1.2.3",
            "[2001:db8::1",
            "2001:db8::1]:443",
            "[1.2.3.4]",
            "\u{ff}",
            "9.9.9.9, unknown",
        ] {
            let found = client("127.0.0.1", &[entry]);
            assert_eq!(found, Client::Unreadable("127.0.0.1".parse().unwrap()), "{entry}");
            assert_eq!(found.counted(), Some("127.0.0.1".parse().unwrap()));
        }
        let behind_two = client("127.0.0.1", &["1.2.3.4, unknown, 10.0.0.1"]);
        assert_eq!(behind_two.counted(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(client("127.0.0.1", &[]).counted(), None, "it speaks for everybody");
        assert_eq!(known("2001:db8::1").counted(), Some("2001:db8::".parse().unwrap()));
    }
}
