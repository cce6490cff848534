//! One address, or all that begin alike.

use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that have their first bits in common. An IPv4 address that is mapped into IPv6 is that IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    prefix_bits: u32,
}

/// The text is no address and no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotANetwork;

/// Bits before an IPv4 address that is mapped into IPv6 (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u32 = 96;

impl IpNetwork {
    /// Returns whether the network has `address` in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits - self.prefix_bits;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let different = ours.to_bits() ^ other.to_bits();
                different.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let different = ours.to_bits() ^ other.to_bits();
                different.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for IpNetwork {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let address = given.to_canonical();
        let given_bits = if given.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| NotANetwork)?,
            None => given_bits,
        };
        let unmapped = if address.is_ipv4() && given.is_ipv6() { MAPPED_BITS } else { 0 };
        match prefix.checked_sub(unmapped) {
            Some(prefix_bits) if prefix <= given_bits => Ok(Self { address, prefix_bits }),
            Some(_) | None => Err(NotANetwork),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_what_begins_alike_in_it() {
        let table = [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1/8", "10.255.0.9", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:9::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("::1", "::1", true),
            // One address in two notations.
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.1/128", "10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.0.0.0", false),
            ("::ffff:0:0/96", "9.9.9.9", true),
        ];
        for (network, address, within) in table {
            let network: IpNetwork = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), within, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "/8", "10.0.0.1/33", "10.0.0.1/", "10.0.0/8", "::1/129", "::1/-1", "a"] {
            assert_eq!(text.parse::<IpNetwork>(), Err(NotANetwork), "{text}");
        }
        // It would hold addresses of both kinds.
        assert_eq!("::ffff:0:0/95".parse::<IpNetwork>(), Err(NotANetwork));
    }
}
