//! Addresses as the config writes them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::report::quoted;

/// A port alone listens on loopback: nothing is reachable from outside unless somebody wrote it down.
pub(crate) fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `10001`, `0.0.0.0:10001`, `[::]:10001` or `localhost:10001`.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let (address, port_text) = match text.rsplit_once(':') {
        Some((address, port)) => (address, port),
        None => ("localhost", text),
    };
    let is_number = !port_text.is_empty() && port_text.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return Err(format!("expected a port or \"ADDRESS:PORT\", found {}", quoted(text)));
    }
    let port = port(port_text)?;
    if address == "localhost" {
        return Ok(on_loopback(port));
    }
    let ip = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6),
        None => address.parse().map(IpAddr::V4),
    };
    ip.map(|ip| SocketAddr::new(ip, port)).map_err(|_| {
        format!(
            "{} is no address to listen on: expected an IP address (IPv6 in brackets) or `localhost`",
            quoted(address)
        )
    })
}

/// A port as its digits.
pub(crate) fn port(digits: &str) -> Result<u16, String> {
    match digits.parse() {
        Ok(0) | Err(_) => Err(format!("{} is out of range: a port is 1 to 65535", shortened(digits))),
        Ok(port) => Ok(port),
    }
}

/// `HOST:PORT`, checked for its form only.
pub(crate) fn host_port(text: &str) -> Result<(), String> {
    match text.rsplit_once(':') {
        Some((host, digits))
            if !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c == '/')
                && !digits.is_empty() =>
        {
            port(digits).map(drop)
        }
        _ => Err(format!("expected \"HOST:PORT\", found {}", quoted(text))),
    }
}

/// A number of the author's, not longer than a line.
pub(crate) fn shortened(digits: &str) -> String {
    match digits.char_indices().nth(24) {
        Some((cut, _)) => format!("{}…", &digits[..cut]),
        None => digits.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_or_localhost() {
        for (text, expected) in [
            ("10001", "127.0.0.1:10001"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), expected);
        }
        for (text, fault) in [
            ("", "expected a port or \"ADDRESS:PORT\", found \"\""),
            ("http", "expected a port or \"ADDRESS:PORT\", found \"http\""),
            ("0.0.0.0:0", "0 is out of range: a port is 1 to 65535"),
            ("0.0.0.0:65536", "65536 is out of range: a port is 1 to 65535"),
            (
                "example.com:80",
                "\"example.com\" is no address to listen on: expected an IP address (IPv6 in brackets) or `localhost`",
            ),
            (
                "::1:80",
                "\"::1\" is no address to listen on: expected an IP address (IPv6 in brackets) or `localhost`",
            ),
        ] {
            assert_eq!(listen(text).unwrap_err(), fault);
        }
    }
}
