//! The header fields of a message, in the order in which they came, spelt as they came.

use crate::http1::client::KEPT_CAPACITY;
use std::ops::Range;

/// The names that the proxy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyConnection,
    RequestId,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    GaplessNode,
    GaplessRelease,
    Other,
}

impl Name {
    pub(crate) fn of(name: &[u8]) -> Self {
        let known: &[(&str, Name)] = match name.len() {
            2 => &[("te", Name::Te)],
            4 => &[("host", Name::Host)],
            6 => &[("cookie", Name::Cookie), ("expect", Name::Expect)],
            7 => &[("upgrade", Name::Upgrade)],
            9 => &[("forwarded", Name::Forwarded)],
            10 => &[("connection", Name::Connection), ("keep-alive", Name::KeepAlive), ("user-agent", Name::UserAgent)],
            12 => &[("x-request-id", Name::RequestId)],
            14 => &[("content-length", Name::ContentLength), ("x-gapless-node", Name::GaplessNode)],
            15 => &[("x-forwarded-for", Name::ForwardedFor)],
            16 => &[("proxy-connection", Name::ProxyConnection), ("x-forwarded-host", Name::ForwardedHost)],
            17 => &[
                ("transfer-encoding", Name::TransferEncoding),
                ("x-forwarded-proto", Name::ForwardedProto),
                ("x-gapless-release", Name::GaplessRelease),
            ],
            18 => &[("proxy-authenticate", Name::ProxyAuthenticate)],
            _ => &[],
        };
        known.iter().find(|(spelt, _)| name.eq_ignore_ascii_case(spelt.as_bytes())).map_or(Name::Other, |(_, name)| *name)
    }

    /// It belongs to one connection (RFC 9110, section 7.6.1): it is never passed on. What frames the message is written anew.
    pub(crate) fn is_of_one_connection(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::ProxyAuthenticate
                | Name::Te
                | Name::TransferEncoding
                | Name::Upgrade
        )
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) known: Name,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    known: Name,
    name: Range<usize>,
    value: Range<usize>,
}

/// The fields of one message. Cleared and filled again, it takes no memory anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl Fields {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// Gives memory back that one large head needed.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to(KEPT_CAPACITY);
    }

    /// Adds a field at the end.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let middle = begin + name.len();
        self.places.push(Place { known: Name::of(name), name: begin..middle, value: middle..middle + value.len() });
    }

    /// Puts this one field in the place of all of its name.
    pub(crate) fn set(&mut self, known: Name, value: &[u8]) {
        let spelt: &[u8] = match known {
            Name::Cookie => b"cookie",
            _ => b"host",
        };
        self.places.retain(|place| place.known != known);
        self.push(spelt, value);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| Field {
            known: place.known,
            name: &self.bytes[place.name.clone()],
            value: &self.bytes[place.value.clone()],
        })
    }

    /// The values of all fields of this name.
    pub(crate) fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |field| field.known == name).map(|field| field.value)
    }

    /// The value of the first field of this name.
    pub(crate) fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Whether a field of this name has this value.
    pub(crate) fn says(&self, name: &str, value: &str) -> bool {
        self.iter().any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()) && field.value == value.as_bytes())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn has(&self, name: Name) -> bool {
        self.places.iter().any(|place| place.known == name)
    }

    /// The members of all fields of this name, whose values are lists (RFC 9110, section 5.6.1).
    pub(crate) fn members(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.all(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether such a list has this member.
    pub(crate) fn lists(&self, name: Name, member: &str) -> bool {
        self.members(name).any(|known| known.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// The fields that go beyond this connection: without those that belong to it, and those that `Connection` says do. Without the length, too, which whoever writes the message knows.
    pub(crate) fn passed_on(&self) -> impl Iterator<Item = Field<'_>> {
        let is_plain = !self.has(Name::Connection);
        self.iter().filter(move |field| {
            let ends_here = field.known.is_of_one_connection() || field.known == Name::ContentLength || is_look_alike(field);
            !ends_here && (is_plain || field.known == Name::Host || !self.is_listed_in_connection(field.name))
        })
    }

    fn is_listed_in_connection(&self, name: &[u8]) -> bool {
        self.members(Name::Connection).any(|member| member.eq_ignore_ascii_case(name))
    }
}

/// Programs behind a gateway read `X_Forwarded_For` as `X-Forwarded-For`, which is the proxy's to say.
fn is_look_alike(field: &Field<'_>) -> bool {
    field.known == Name::Other && memchr::memchr(b'_', field.name).is_some() && {
        let spelt: Vec<u8> = field.name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        Name::of(&spelt) != Name::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        lines.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    #[test]
    fn what_connection_names_ends_here_with_it() {
        let fields = fields(&[
            ("Connection", "close, X-Secret , host"),
            ("x-secret", "1"),
            ("Host", "a"),
            ("Keep-Alive", "timeout=5"),
            ("Content-Length", "3"),
            ("aCCept", "*/*"),
        ]);
        let left: Vec<&[u8]> = fields.passed_on().map(|field| field.name).collect();
        assert_eq!(left, [b"Host".as_slice(), b"aCCept"]);
    }

    #[test]
    fn names_are_known_however_they_are_spelt() {
        for (spelt, name) in [("TE", Name::Te), ("cOOKIE", Name::Cookie), ("X-Gapless-Release", Name::GaplessRelease), ("tee", Name::Other)]
        {
            assert_eq!(Name::of(spelt.as_bytes()), name);
        }
    }

    #[test]
    fn a_list_may_stand_in_several_fields() {
        let fields = fields(&[("connection", "keep-alive,, Upgrade"), ("Connection", "x")]);
        assert!(fields.lists(Name::Connection, "upgrade") && fields.lists(Name::Connection, "X") && !fields.lists(Name::Connection, "up"));
    }
}
