//! Which addresses a request may reach, depending on who named its URL: the one rule for all
//! outbound requests.

use crate::trouble::{OutboundError, host_of};
use passavant_proto::{identifier::is_loopback, others_text::shown};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Which addresses a request may reach. A document from the internet must not direct us to an
/// address on this machine or in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Public addresses over https: for URLs that someone else chose.
    Public,
    /// Also private networks, over https: for URLs that the administrator or user wrote, and URLs
    /// found from there.
    Private,
    /// Also this machine, where plain http is allowed.
    Loopback,
}

impl Reach {
    /// The reach of a URL that the operator chose: just enough for its host.
    pub fn of_trusted_url(url: &str) -> Self {
        match Url::parse(url) {
            Ok(url) if is_loopback(&url) => Self::Loopback,
            _ => Self::Private,
        }
    }

    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match class_of(address) {
            Class::Public => true,
            Class::Private => self >= Self::Private,
            Class::Loopback => self == Self::Loopback,
            Class::Never => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Public,
    Private,
    Loopback,
    Never,
}

/// The class of an address, by RFC 6890 and related registries. Addresses that embed another one
/// (mapped, NAT64, 6to4, Teredo, ISATAP) are never public: they are rejected, not unwrapped.
pub(crate) fn class_of(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(ip) => class_of_v4(ip),
        IpAddr::V6(ip) => class_of_v6(ip),
    }
}

fn class_of_v4(ip: Ipv4Addr) -> Class {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Class::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Class::Private,
        (0 | 224.., ..)
        | (169, 254, _)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113) => Class::Never,
        _ => Class::Public,
    }
}

fn class_of_v6(ip: Ipv6Addr) -> Class {
    if ip.is_loopback() {
        return Class::Loopback;
    }
    let s = ip.segments();
    let isatap = (s[4] & 0xfdff) == 0 && s[5] == 0x5efe;
    match s[0] {
        0xfc00..=0xfdff => Class::Private,
        // Only 2000::/3 is global unicast; 2001::/23 (including Teredo), documentation and 6to4 are
        // excluded from it.
        0x2001 if s[1] < 0x0200 || s[1] == 0x0db8 => Class::Never,
        0x2002 => Class::Never,
        0x3fff if s[1] < 0x1000 => Class::Never,
        0x2000..=0x3fff if !isatap => Class::Public,
        _ => Class::Never,
    }
}

/// Parses a URL and checks its scheme. If the host is an IP address, that is checked here, too,
/// because the resolver is not asked about it.
pub fn checked(text: &str, reach: Reach) -> Result<Url, OutboundError> {
    let bad = || OutboundError::Url(shown(text, 200));
    let url = Url::parse(text).map_err(|_| bad())?;
    let plain = url.scheme() == "http";
    let local = is_loopback(&url);
    if !(url.scheme() == "https" || (plain && local)) || !url.username().is_empty() {
        return Err(bad());
    }
    let out_of_reach = match url.host() {
        Some(Host::Ipv4(ip)) => !reach.allows(ip.into()),
        Some(Host::Ipv6(ip)) => !reach.allows(ip.into()),
        Some(Host::Domain(_)) => local && reach != Reach::Loopback,
        None => true,
    };
    if out_of_reach {
        return Err(OutboundError::Reach(host_of(&url)));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(reach: Reach, text: &str) -> bool {
        reach.allows(text.parse().unwrap())
    }

    #[test]
    fn addresses_that_are_not_public_are_out_of_public_reach() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "2606:4700::5efe:a00:1",
            "100::1",
        ] {
            assert!(!allowed(Reach::Public, text), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "2606:4700::1111"] {
            assert!(allowed(Reach::Public, text), "{text}");
        }
    }

    #[test]
    fn a_wider_reach_adds_private_networks_and_then_this_machine_but_never_link_local() {
        assert!(allowed(Reach::Private, "10.0.0.1"));
        assert!(!allowed(Reach::Private, "127.0.0.1"));
        assert!(allowed(Reach::Loopback, "::1"));
        assert!(!allowed(Reach::Loopback, "169.254.169.254"));
        assert_eq!(Reach::of_trusted_url("http://localhost:1/x"), Reach::Loopback);
        assert_eq!(Reach::of_trusted_url("https://idp.example"), Reach::Private);
    }
}
