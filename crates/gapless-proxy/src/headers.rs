//! Which headers end at the proxy, and which it adds.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers that belong to one connection (RFC 9110, section 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what belongs to the connection that the message came on.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in connection_tokens(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The header names that `Connection` lists, but those without which a message could not be understood.
fn connection_tokens(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse::<HeaderName>().ok())
        .filter(|name| !matches!(name.as_str(), "host" | "content-length" | "close"))
        .collect()
}

/// Whether `Connection` asks for an upgrade to something that can be tunnelled; h2c cannot, and is ignored as RFC 9110 allows.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(UPGRADE).filter(|_| asks)?;
    let is_h2c = protocol.to_str().is_ok_and(|text| text.split(',').any(|name| name.trim().eq_ignore_ascii_case("h2c")));
    (!is_h2c).then(|| protocol.clone())
}

/// Tells the node whom it really talks to. The client's own chain is kept before it: only the last entry can be trusted.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, peer: IpAddr, host: &HeaderValue) {
    let mut chain = String::new();
    for earlier in headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(earlier);
        chain.push_str(", ");
    }
    chain.push_str(&peer.to_canonical().to_string());
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_HOST, host.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_is_taken_out_with_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close, X-Secret , host"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        headers.insert("host", HeaderValue::from_static("a"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        strip_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "accept"]);
    }

    #[test]
    fn the_client_comes_last_in_the_chain() {
        let mut headers = HeaderMap::new();
        headers.append(&FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        headers.append(&FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        add_forwarded(&mut headers, [127, 0, 0, 1].into(), &HeaderValue::from_static("example.com"));
        assert_eq!(headers[&FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 127.0.0.1");
        assert_eq!(headers[&FORWARDED_HOST], "example.com");
    }

    #[test]
    fn websocket_is_an_upgrade_and_h2c_is_not() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(wanted_upgrade(&headers), None, "without Connection it means nothing");
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(wanted_upgrade(&headers).unwrap(), "websocket");
        headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
        assert_eq!(wanted_upgrade(&headers), None);
    }
}
