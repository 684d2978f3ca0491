//! Cookies: those that clients send, and the one that keeps them where they are (RFC 6265).

use crate::fields::{Fields, Name};
use crate::node::Node;

/// The value of the first cookie of this name.
pub(crate) fn value<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    let pairs = fields.all(Name::Cookie).filter_map(|value| std::str::from_utf8(value).ok()).flat_map(|value| value.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// What the cookie of a client says that stays with this node: node and release.
pub(crate) fn place_of(node: &Node) -> String {
    format!("{}.{}", node.name, node.release)
}

/// Reads it back.
pub(crate) fn place(value: &str) -> Option<(&str, &str)> {
    value.split_once('.')
}

/// The field's value that lets the client keep it for as long as its session lasts.
pub(crate) fn set(name: &str, place: &str, is_secure: bool) -> String {
    format!("{name}={place}; Path=/; HttpOnly; SameSite=Lax{}", if is_secure { "; Secure" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut fields = Fields::default();
        fields.push(b"Cookie", b"a=1; gapless=r7-i12-n0.web-r7;b=2");
        fields.push(b"cookie", b"c=3");
        assert_eq!(value(&fields, "gapless").and_then(place), Some(("r7-i12-n0", "web-r7")));
        assert_eq!((value(&fields, "c"), value(&fields, "d")), (Some("3"), None));
        assert_eq!(set("g", "a.b", true), "g=a.b; Path=/; HttpOnly; SameSite=Lax; Secure");
    }
}
