//! The value of a `Host` header, as far as a guard against names of strangers needs it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether the value of a `Host` header names this host: `localhost`, a loopback address of IPv4, or `[::1]`, each with or without a
/// port. Everything else is somebody's name, also what only begins like one of these.
///
/// ```
/// assert!(ffhttp::is_loopback_host("localhost:9998") && ffhttp::is_loopback_host("[::1]"));
/// assert!(!ffhttp::is_loopback_host("[::1].evil.example") && !ffhttp::is_loopback_host("localhost:x@evil.example"));
/// ```
pub fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse() == Ok(Ipv6Addr::LOCALHOST) => ("localhost", port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port =
        |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|c| c.is_ascii_digit());
    let this_host =
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|v4: Ipv4Addr| v4.is_loopback());
    this_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_host_are_known() {
        for good in ["localhost", "LOCALHOST:9998", "127.0.0.1:1", "127.1.2.3", "[::1]:9998", "[::1]"] {
            assert!(is_loopback_host(good), "{good}");
        }
    }

    #[test]
    fn names_that_only_look_like_it_are_not() {
        for bad in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "[::1].evil.example",
            "[::1",
            "[::1]x",
            "[::1]:80:80",
            "localhost:x@evil.example",
            "localhost:",
            "localhost:80@evil.example",
            "localhost:123456",
            "localhost localhost",
            "127.0.0.1:+1",
        ] {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }
}
