//! A request as it came: read once, at the border; and as a node gets it.

use crate::fields::{Field, Fields, Name};
use crate::http1::client::KEPT_CAPACITY;
use crate::http1::head::{Fault, Framing, RequestLine, length, parse_request, request_framing};
use crate::http2::body::fields_of;
use crate::route::normal_host;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use std::net::IpAddr;
use std::rc::Rc;

/// The longest request id that is taken over from a client, in bytes: longer ones would fill the logs.
const REQUEST_ID_LIMIT: usize = 128;

/// A request that is refused before it is anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str);

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::LineEnding => Refusal(StatusCode::BAD_REQUEST, "a line does not end with CR LF"),
            Fault::Malformed(what) | Fault::Framing(what) => Refusal(StatusCode::BAD_REQUEST, what),
            Fault::Version => Refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "neither HTTP/1.1 nor HTTP/1.0"),
            Fault::TargetTooLong => Refusal(StatusCode::URI_TOO_LONG, "the request's target is too long"),
            Fault::TooLarge => Refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large"),
        }
    }
}

/// The protocol that a request came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// Who asks, and how: the same for all requests of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    peer: Rc<str>,
    /// Its value in a `Forwarded` field (RFC 7239, section 6).
    forwarded_for: Rc<str>,
    scheme: &'static str,
    /// Every request is sent on to `https` at this port.
    pub(crate) redirects_to: Option<u16>,
}

impl Client {
    pub(crate) fn new(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let forwarded_for = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
        Self { address: peer, peer: peer.to_string().into(), forwarded_for: forwarded_for.into(), scheme: "http", redirects_to: None }
    }

    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    pub(crate) fn set_secure(&mut self) {
        self.scheme = "https";
    }

    /// It came over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }
}

/// What is known of a request's head. Read again and again, it takes no memory anew.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    /// As routes name it.
    pub(crate) host: String,
    /// How long its body is.
    pub(crate) framing: Framing,
    /// The client waits for a word before it sends its body (RFC 9110, section 10.1.1).
    pub(crate) expects_continue: bool,
    /// The client wants the connection to go on after the answer.
    pub(crate) keeps_connection: bool,
    /// The client would rather speak another protocol that can be tunnelled.
    pub(crate) wants_upgrade: bool,
    /// The host as the client spelt it.
    authority: Vec<u8>,
    target: Vec<u8>,
    fields: Fields,
    request_id: Vec<u8>,
}

impl Inbound {
    /// Reads the head of a request of HTTP/1.
    ///
    /// # Errors
    /// With the refusal, for one that is malformed, names no host or several, or is a CONNECT.
    pub(crate) fn read(&mut self, head: &[u8], most_fields: usize, new_id: impl FnOnce() -> u128) -> Result<(), Refusal> {
        let RequestLine { method, target, minor } = parse_request(head, &mut self.fields)?;
        if self.fields.len() > most_fields {
            return Err(Fault::TooLarge.into());
        }
        self.method = Method::from_bytes(&head[method]).map_err(|_| Refusal(StatusCode::BAD_REQUEST, "the method is no token"))?;
        if self.method == Method::CONNECT {
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "CONNECT: this is no forward proxy"));
        }
        self.protocol = if minor == 0 { Protocol::Http10 } else { Protocol::Http11 };
        self.framing = request_framing(&self.fields, minor)?;
        self.read_target(&head[target])?;
        self.read_connection()?;
        self.read_id(new_id);
        Ok(())
    }

    /// Reads the head of a request of HTTP/2, as the crate `h2` has checked it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_http2(
        &mut self,
        head: &Parts,
        is_over: bool,
        most_fields: usize,
        new_id: impl FnOnce() -> u128,
    ) -> Result<(), Refusal> {
        self.method = head.method.clone();
        if self.method == Method::CONNECT {
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "CONNECT: this is no forward proxy"));
        }
        self.protocol = Protocol::Http2;
        self.fields = fields_of(&head.headers);
        if self.fields.len() > most_fields {
            return Err(Fault::TooLarge.into());
        }
        self.join_cookies();
        self.framing = match length(&self.fields)? {
            _ if is_over => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        match head.uri.authority() {
            Some(authority) => self.fields.set(Name::Host, authority.as_str().as_bytes()),
            None if !self.fields.has(Name::Host) => return Err(Refusal(StatusCode::BAD_REQUEST, "neither :authority nor Host")),
            None => {}
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_string();
        self.read_target(target.as_bytes())?;
        self.read_connection()?;
        self.expects_continue = false;
        self.read_id(new_id);
        Ok(())
    }

    /// A client may send its cookies in several fields, of which HTTP/1 knows nothing (RFC 9113, section 8.2.3).
    fn join_cookies(&mut self) {
        if self.fields.all(Name::Cookie).nth(1).is_some() {
            let whole = self.fields.all(Name::Cookie).collect::<Vec<_>>().join(b"; ".as_slice());
            self.fields.set(Name::Cookie, &whole);
        }
    }

    /// The target, and the host: that of the target, if it has one (RFC 9112, section 3.2.2), else the header's.
    fn read_target(&mut self, target: &[u8]) -> Result<(), Refusal> {
        let mut named = self.fields.all(Name::Host);
        let header = named.next();
        if named.next().is_some() {
            return Err(Refusal(StatusCode::BAD_REQUEST, "more than one Host header"));
        }
        self.target.clear();
        let is_asterisk = target == b"*" && self.method == Method::OPTIONS;
        // Who names the host in the target has to name one in the header, too (RFC 9112, section 3.2), and others may look only there.
        let header = match header {
            Some(host) => host,
            None if self.protocol == Protocol::Http10 => b"localhost",
            None => return Err(Refusal(StatusCode::BAD_REQUEST, "the Host header is missing")),
        };
        let authority = if target.starts_with(b"/") || is_asterisk {
            self.target.extend_from_slice(target);
            header
        } else {
            let (authority, path) =
                absolute(target).ok_or(Refusal(StatusCode::BAD_REQUEST, "the target is neither a path nor an address"))?;
            if path.is_empty() && self.method == Method::OPTIONS {
                self.target.push(b'*');
            } else if !path.starts_with(b"/") {
                self.target.push(b'/');
            }
            self.target.extend_from_slice(path);
            authority
        };
        if !is_authority(authority) || !is_authority(header) {
            return Err(Refusal(StatusCode::BAD_REQUEST, "the host is malformed"));
        }
        self.authority.clear();
        self.authority.extend_from_slice(authority);
        self.host.clear();
        // Of a host's characters, all are ASCII.
        self.host.push_str(&normal_host(&String::from_utf8_lossy(&self.authority)));
        Ok(())
    }

    fn read_connection(&mut self) -> Result<(), Refusal> {
        let fields = &self.fields;
        self.keeps_connection = match self.protocol {
            Protocol::Http11 => !fields.lists(Name::Connection, "close"),
            Protocol::Http10 => fields.lists(Name::Connection, "keep-alive") && !fields.lists(Name::Connection, "close"),
            Protocol::Http2 => true,
        };
        self.expects_continue = false;
        if fields.has(Name::Expect) {
            if !fields.all(Name::Expect).all(|expected| expected.eq_ignore_ascii_case(b"100-continue")) {
                return Err(Refusal(StatusCode::EXPECTATION_FAILED, "an Expect header other than 100-continue"));
            }
            self.expects_continue = self.protocol == Protocol::Http11 && self.framing != Framing::Empty;
        }
        // h2c cannot be tunnelled, and is ignored as RFC 9110, section 7.8, allows.
        self.wants_upgrade = self.protocol == Protocol::Http11
            && self.framing == Framing::Empty
            && fields.has(Name::Upgrade)
            && fields.lists(Name::Connection, "upgrade")
            && !fields.lists(Name::Upgrade, "h2c");
        Ok(())
    }

    fn read_id(&mut self, new_id: impl FnOnce() -> u128) {
        self.request_id.clear();
        let own = self.fields.first(Name::RequestId).filter(|id| is_request_id(id));
        match own {
            Some(id) => self.request_id.extend_from_slice(id),
            None => self.request_id.extend_from_slice(format!("{:032x}", new_id()).as_bytes()),
        }
    }

    /// Gives memory back that one large head needed.
    pub(crate) fn shrink(&mut self) {
        self.fields.clear();
        self.fields.shrink();
        self.target.clear();
        self.target.shrink_to(KEPT_CAPACITY);
    }

    /// As a node gets it: the path, and the query.
    pub(crate) fn target(&self) -> &[u8] {
        &self.target
    }

    /// The host as the client spelt it.
    pub(crate) fn authority(&self) -> &[u8] {
        &self.authority
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(crate) fn request_id(&self) -> &[u8] {
        &self.request_id
    }

    pub(crate) fn user_agent(&self) -> &[u8] {
        self.fields.first(Name::UserAgent).unwrap_or_default()
    }

    /// The same address at this port of `https`.
    pub(crate) fn secure_address(&self, port: u16) -> String {
        let (host, target) = (&self.host, String::from_utf8_lossy(&self.target));
        if port == 443 { format!("https://{host}{target}") } else { format!("https://{host}:{port}{target}") }
    }

    /// Sending it twice is the same as sending it once (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
    }

    /// Writes the head as a node of HTTP/1.1 gets it.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, client: &Client) {
        let line = |out: &mut Vec<u8>, name: &[u8], parts: &[&[u8]]| {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.extend_from_slice(b"\r\n");
        };
        for part in [self.method.as_str().as_bytes(), b" ", &self.target, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
        line(out, b"host", &[&self.authority]);
        for Field { known, name, value } in self.fields.passed_on() {
            if !is_written_anew(known) {
                line(out, name, &[value]);
            }
        }
        self.write_chain(out, Name::ForwardedFor, b"x-forwarded-for", &[client.peer.as_bytes()]);
        line(out, b"x-forwarded-proto", &[client.scheme.as_bytes()]);
        line(out, b"x-forwarded-host", &[&self.authority]);
        let forwarded: [&[u8]; 6] =
            [b"for=", client.forwarded_for.as_bytes(), b";host=\"", &self.authority, b"\";proto=", client.scheme.as_bytes()];
        self.write_chain(out, Name::Forwarded, b"forwarded", &forwarded);
        line(out, b"x-request-id", &[&self.request_id]);
        match self.framing {
            Framing::Length(length) => line(out, b"content-length", &[length.to_string().as_bytes()]),
            Framing::Chunked => line(out, b"transfer-encoding", &[b"chunked"]),
            // Of a method that usually has a body, a node wants to hear that there is none (RFC 9110, section 8.6).
            Framing::Empty if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) => line(out, b"content-length", &[b"0"]),
            Framing::Empty | Framing::UntilClose => {}
        }
        if self.wants_upgrade {
            line(out, b"connection", &[b"upgrade"]);
            self.fields.all(Name::Upgrade).for_each(|protocol| line(out, b"upgrade", &[protocol]));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The client's own chain is kept before the client itself: only the last entry can be trusted.
    fn write_chain(&self, out: &mut Vec<u8>, name: Name, spelt: &[u8], last: &[&[u8]]) {
        out.extend_from_slice(spelt);
        out.extend_from_slice(b": ");
        // Behind a quote that does not end, the last one would be a part of it.
        let is_whole = |value: &&[u8]| {
            !value.is_empty() && value.iter().filter(|byte| **byte == b'"').count().is_multiple_of(2) && !value.contains(&b'\\')
        };
        for earlier in self.fields.all(name).filter(is_whole) {
            out.extend_from_slice(earlier);
            out.extend_from_slice(b", ");
        }
        last.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b"\r\n");
    }
}

/// The proxy writes these fields itself. Asking the client for its body is the proxy's part, so no node hears of an expectation.
fn is_written_anew(name: Name) -> bool {
    matches!(
        name,
        Name::Host | Name::Expect | Name::Forwarded | Name::ForwardedFor | Name::ForwardedHost | Name::ForwardedProto | Name::RequestId
    )
}

/// The host and the path of an address (RFC 9112, section 3.2.2).
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| {
        target.get(..scheme.len()).filter(|begin| begin.eq_ignore_ascii_case(scheme)).map(|_| &target[scheme.len()..])
    })?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    (end > 0).then(|| rest.split_at(end))
}

/// A host, and perhaps its port (RFC 3986, section 3.2), without the list separators that only a crafted one has. Where the host ends must be the same for everybody.
fn is_authority(authority: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'%');
    let is_of_address = |byte: &u8| is_of_name(byte) || *byte == b':';
    let is_bracketed = authority.starts_with(b"[");
    let end = memchr::memchr(if is_bracketed { b']' } else { b':' }, authority).unwrap_or(authority.len());
    let (host, rest) = authority.split_at(end);
    let (is_host, port) = if is_bracketed {
        (host.len() > 1 && host[1..].iter().all(is_of_address) && !rest.is_empty(), rest.get(1..).unwrap_or_default())
    } else {
        (!host.is_empty() && host.iter().all(is_of_name), rest)
    };
    is_host && port.strip_prefix(b":").map_or(port.is_empty(), |digits| digits.iter().all(u8::is_ascii_digit))
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_LIMIT).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Inbound, Refusal> {
        let mut inbound = Inbound::default();
        inbound.read(head.as_bytes(), 100, || 7).map(|()| inbound)
    }

    fn written(head: &str) -> String {
        let mut out = Vec::new();
        read(head).unwrap().write_head(&mut out, &Client::new([127, 0, 0, 1].into()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_node_hears_who_asks() {
        let head = "GET /a?b HTTP/1.1\r\nHost: A.example:80\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nForwarded: for=x\r\nExpect: 100-continue\r\naCCept: */*\r\n\r\n";
        assert_eq!(
            written(head),
            "GET /a?b HTTP/1.1\r\nhost: A.example:80\r\naCCept: */*\r\nx-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1\r\nx-forwarded-proto: http\r\n\
             x-forwarded-host: A.example:80\r\nforwarded: for=x, for=127.0.0.1;host=\"A.example:80\";proto=http\r\nx-request-id: 00000000000000000000000000000007\r\n\r\n"
        );
        assert_eq!(&*Client::new("::1".parse().unwrap()).forwarded_for, "\"[::1]\"");
        assert_eq!(&*Client::new("::ffff:10.0.0.1".parse().unwrap()).peer, "10.0.0.1");
    }

    #[test]
    fn a_request_id_is_taken_over_if_it_is_one() {
        assert!(written("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a-1\r\n\r\n").contains("x-request-id: a-1\r\n"));
        assert!(written("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\"1\r\n\r\n").contains("x-request-id: 0000"));
    }

    #[test]
    fn an_upgrade_is_passed_on_and_h2c_is_not() {
        let asked = |upgrade: &str, connection: &str| {
            written(&format!("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: {upgrade}\r\nConnection: {connection}\r\n\r\n"))
        };
        assert!(asked("websocket", "keep-alive, Upgrade").ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"));
        assert!(!asked("websocket", "keep-alive").contains("pgrade"), "without Connection it means nothing");
        assert!(!asked("h2c", "upgrade").contains("pgrade"));
    }

    #[test]
    fn the_target_names_the_host_before_the_header_does() {
        let inbound = read("GET HTTP://Blog.example?x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((inbound.host.as_str(), inbound.target.as_slice()), ("blog.example", b"/?x".as_slice()));
        for bad in [
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().target, b"*");
    }

    #[test]
    fn a_host_ends_at_one_place() {
        for good in ["a", "a.example.:80", "a:", "a_b~c%20", "[::1]", "[::1%25eth0]:80"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a:80:81", "a:b", "a:-1", "[::1", "[]", "[::1]a", "a]", "[a]b]:1", "a[b]", "u@a", "a/b", "a,b", "a b", "a\\b"]
        {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
