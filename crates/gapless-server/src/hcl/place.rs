//! Places that services answer: a host, or a host and the path that its requests begin with.

use super::reader::{Complaint, text};
use hcl_edit::expr::Expression;

/// The longest host name, in bytes: 255 with the lengths of its first label and of the root (RFC 1035, section 2.3.4).
const HOST_LIMIT: usize = 253;

/// The longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const LABEL_LIMIT: usize = 63;

/// The longest path of a place, in bytes: a proxy compares it with every request of its host.
const PATH_LIMIT: usize = 255;

/// Whether `text` is the name of a host: lower case, without a port.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.len() <= LABEL_LIMIT && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= HOST_LIMIT && text.split('.').all(label)
}

/// A host, or `*` for any; with or without a path behind it.
pub(crate) fn place(value: &Expression) -> Result<String, Complaint> {
    let place = text(value)?;
    let (host, path) = place.find('/').map_or((place.as_str(), None), |at| (&place[..at], Some(&place[at..])));
    if host != "*" && !is_host(host) {
        let hint = "a host name in lower case without port, such as \"www.example.com\", or \"*\" for any; a path may follow, such as \"www.example.com/api\"";
        return Err(Complaint::new(format!("is \"{place}\""), hint));
    }
    match path.map(wrong_of_path) {
        Some(Some((what, hint))) => Err(Complaint::new(format!("is \"{place}\", whose path {what}"), hint)),
        _ => Ok(place),
    }
}

/// What keeps a path from being one that every request can be compared with, and what to write.
fn wrong_of_path(path: &str) -> Option<(String, &'static str)> {
    let strange = path.chars().find(|c| !c.is_ascii_alphanumeric() && !"._~-/".contains(*c));
    if let Some(strange) = strange {
        return Some((format!("has `{strange}`"), "letters, digits, `.`, `_`, `~`, `-` and `/`, as clients send them: nothing is decoded"));
    }
    if path.len() > PATH_LIMIT {
        return Some((format!("has {} bytes", path.len()), "at most 255 bytes"));
    }
    if path.ends_with('/') {
        return Some(("ends with `/`".into(), "leave the last `/` out: a path answers itself and what is below it"));
    }
    if path.contains("//") {
        return Some(("has `//`".into(), "one `/` between two parts"));
    }
    path.split('/').any(|part| part == "." || part == "..").then(|| ("has a part `.` or `..`".into(), "write the path that is meant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_or_without_a_path() {
        for good in ["*", "*/api", "localhost", "shop.example", "shop.example/a", "shop.example/api/v1.2/x_y~z-", "10.0.0.1/.well-known"] {
            assert!(place(&Expression::from(good)).is_ok(), "{good}");
        }
        let long = format!("shop.example/{}", "a".repeat(PATH_LIMIT));
        for bad in [
            "",
            "/",
            "/api",
            "Shop.example",
            "shop.example:80",
            "shop..example",
            "*.example",
            "shop.example/",
            "shop.example/api/",
            "shop.example//api",
            "shop.example/./a",
            "shop.example/a/..",
            "shop.example/a%20b",
            "shop.example/a?b",
            "shop.example/ä",
            "a b/c",
            &long,
        ] {
            assert!(place(&Expression::from(bad)).is_err(), "{bad}");
        }
        assert!(is_host(&format!("{}.example", "a".repeat(LABEL_LIMIT))) && !is_host(&"a".repeat(LABEL_LIMIT + 1)));
    }
}
