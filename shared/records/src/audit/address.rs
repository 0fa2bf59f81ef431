//! Addresses of clients: what `inet` holds, and what proxies and frameworks write instead.

use std::net::{IpAddr, Ipv6Addr};

use serde::Serialize;

/// Words for an unknown address: from RFC 7239, section 6.2, from access logs of web servers, for peers of a Unix
/// socket, and how languages print a missing value.
const UNKNOWN: &[&str] = &["", "-", "@", "unix:", "unknown", "null", "none", "undefined", "n/a"];

/// An IP address with a prefix length, as `inet` of Postgres holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The prefix length in bits: 32 or 128 for a single host.
    pub prefix_bits: u8,
}

impl Address {
    /// Parses an address such as `192.0.2.1`, `10.0.0.0/8` or their equivalents in IPv6; `None` for any other text. An
    /// IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, RFC 4291, section 2.5.5.2) becomes the IPv4 address.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let host_bits = if ip.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) if bits.starts_with('+') => return None, // Rust parses it as a number, Postgres does not
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= host_bits)?,
            None => host_bits,
        };
        Some(Self { ip, prefix_bits }.unmapped())
    }

    /// Returns whether `other` is this address or within this network: Postgres' `>>=`.
    pub fn holds(&self, other: &Self) -> bool {
        let differ = match (self.ip, other.ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        self.prefix_bits <= other.prefix_bits && u32::from(self.prefix_bits) <= differ
    }

    /// Converts an IPv4-mapped IPv6 address or network to IPv4.
    fn unmapped(self) -> Self {
        const MAPPED_BITS: u8 = 96;
        match self.ip {
            IpAddr::V6(v6) if self.prefix_bits >= MAPPED_BITS => match v6.to_ipv4_mapped() {
                Some(v4) => Self { ip: IpAddr::V4(v4), prefix_bits: self.prefix_bits - MAPPED_BITS },
                None => self,
            },
            _ => self,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self { ip, prefix_bits: if ip.is_ipv4() { 32 } else { 128 } }.unmapped()
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.ip, self.prefix_bits))
    }
}

/// The address of a client, as written by a proxy or a framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The address; `None` if the text says that it is unknown.
    pub(crate) address: Option<Address>,
    /// Whether the address contains all information of the text.
    pub(crate) is_whole: bool,
}

impl ClientAddress {
    /// Parses an address with or without a port, a zone or a host name, a list of addresses of which the first one is
    /// the client (`X-Forwarded-For`), an element of `Forwarded` (RFC 7239), or a word for an unknown address. `None`
    /// for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(address) = Address::parse(text) {
            return Some(Self { address: Some(address), is_whole: true });
        }
        let client = text.split(',').map(str::trim).find(|element| !element.is_empty()).unwrap_or_default();
        let node = client.split(';').find_map(forwarded_for).unwrap_or(client).trim_matches('"');
        // RFC 7239, section 6.3: an obfuscated identifier begins with an underscore.
        if node.starts_with('_') || UNKNOWN.iter().any(|word| word.eq_ignore_ascii_case(node)) {
            return Some(Self { address: None, is_whole: false });
        }
        let address = Address::parse(node).or_else(|| endpoint(node)).or_else(|| named(node))?;
        let is_whole = node == text.trim() && Address::parse(bracketed(node).unwrap_or(node)).is_some();
        Some(Self { address: Some(address), is_whole })
    }
}

/// Returns the value of `for=…`, a parameter of `Forwarded`.
fn forwarded_for(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.trim().split_once('=')?;
    name.eq_ignore_ascii_case("for").then_some(value)
}

/// Parses `host/192.0.2.1`, or without the host `/192.0.2.1:80`, as Java prints addresses.
fn named(node: &str) -> Option<Address> {
    let (host, node) = node.rsplit_once('/')?;
    let is_network = Address::parse(host).is_some();
    if is_network { None } else { node.parse().ok().map(|ip: IpAddr| Address::from(ip)).or_else(|| endpoint(node)) }
}

/// Parses the address of a host with a port, a zone, or both.
fn endpoint(node: &str) -> Option<Address> {
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        // Without brackets, a colon is part of an IPv6 address, unless the address ends in IPv4 notation.
        None => match node.rsplit_once(':') {
            Some((host, port)) if host.contains('.') => (host, Some(port)),
            _ => (node, None),
        },
    };
    if port.is_some_and(|port| !port.bytes().all(|digit| digit.is_ascii_digit()) || port.parse::<u16>().is_err()) {
        return None;
    }
    let ip = match host.split_once('%') {
        Some((_, "")) => return None,
        // RFC 4007, section 11.2: only IPv6 addresses have zones.
        Some((host, _)) => IpAddr::V6(host.parse::<Ipv6Addr>().ok()?),
        None => host.parse().ok()?,
    };
    Some(Address::from(ip))
}

/// Returns the text between brackets.
fn bracketed(node: &str) -> Option<&str> {
    node.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the address as `inet` prints it, and whether it contains all information of the text.
    fn read(text: &str) -> Option<(String, bool)> {
        let ClientAddress { address, is_whole } = ClientAddress::parse(text)?;
        let text =
            address.map_or_else(|| "null".to_owned(), |Address { ip, prefix_bits }| format!("{ip}/{prefix_bits}"));
        Some((text, is_whole))
    }

    #[test]
    fn an_address_is_found_however_it_is_written() {
        for (text, address, is_whole) in [
            ("1.2.3.4", "1.2.3.4/32", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("2001:db8::1", "2001:db8::1/128", true),
            ("2001:DB8::/32", "2001:db8::/32", true),
            (" 1.2.3.4 ", "1.2.3.4/32", true),
            ("[2001:db8::1]", "2001:db8::1/128", true),
            ("::ffff:1.2.3.4", "1.2.3.4/32", true),
            ("::FFFF:102:304", "1.2.3.4/32", true),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", true),
            ("::/0", "::/0", true),
            ("1.2.3.4:8080", "1.2.3.4/32", false),
            ("[2001:db8::1]:443", "2001:db8::1/128", false),
            ("fe80::1%eth0", "fe80::1/128", false),
            ("[fe80::1%25eth0]:443", "fe80::1/128", false),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4/32", false),
            ("::ffff:1.2.3.4:80", "1.2.3.4/32", false),
            ("1.2.3.4, 5.6.7.8", "1.2.3.4/32", false),
            ("1.2.3.4,5.6.7.8", "1.2.3.4/32", false),
            (", 1.2.3.4", "1.2.3.4/32", false),
            ("[2001:db8::1]:443, 5.6.7.8:80, unknown", "2001:db8::1/128", false),
            ("/1.2.3.4:52114", "1.2.3.4/32", false),
            ("localhost/127.0.0.1", "127.0.0.1/32", false),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60/32", false),
            ("proto=http;For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17/128", false),
            ("for=192.0.2.43, for=198.51.100.17", "192.0.2.43/32", false),
        ] {
            assert_eq!(read(text), Some((address.to_owned(), is_whole)), "{text:?}");
        }
    }

    #[test]
    fn not_known_is_null() {
        for text in
            ["", "  ", ",", "-", "unknown", "UNKNOWN", "for=unknown", "_hidden", "for=_SEVKISEK", "unix:", "null"]
        {
            assert_eq!(read(text), Some(("null".to_owned(), false)), "{text:?}");
        }
        assert_eq!(read("unknown, 1.2.3.4"), Some(("null".to_owned(), false)), "the first one is the client");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "300.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4:65536",
            "1.2.3.4:http",
            "1.2.3.4:+80",
            "1.2.3.4:",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "1.2.3.4%eth0",
            "fe80::1%",
            "[2001:db8::1",
            "[2001:db8::1]443",
            "[1.2.3.4.5]:80",
            "2001:db8::1::2",
            "example.org",
            "example.org:80",
            "999.1.1.1, 1.2.3.4",
            "10.0.0.0/8/1.2.3.4x",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses() {
        let holds =
            |network: &str, other: &str| Address::parse(network).unwrap().holds(&Address::parse(other).unwrap());
        assert!(holds("10.0.0.0/8", "10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "11.1.2.3"));
        assert!(!holds("::/0", "10.1.2.3"));
    }
}
