//! The request line, its target, the ends of lines, and what is no HTTP/1 at all.

use super::{Case, Must, case, closed, refused};

/// A request with this first line.
fn line(name: &'static str, status: u16, line: &[u8]) -> Case {
    refused(name, status, [line, b"\r\nHost: a\r\n\r\n"].concat())
}

/// What does not end in a version that is known is answered as another version.
pub fn request_lines() -> Vec<Case> {
    vec![
        line("a line without a target", 400, b"GET HTTP/1.1"),
        line("a line without a version", 400, b"GET /name"),
        line("a line without a version, and a space", 505, b"GET /name "),
        line("a method alone", 400, b"GET"),
        line("a line that begins with a space", 400, b" GET /name HTTP/1.1"),
        line("a line without a method", 400, b" /name HTTP/1.1"),
        line("two spaces before the target", 400, b"GET  /name HTTP/1.1"),
        line("two spaces before the version", 505, b"GET /name  HTTP/1.1"),
        line("a space after the version", 400, b"GET /name HTTP/1.1 "),
        line("tabs in place of spaces", 400, b"GET\t/name\tHTTP/1.1"),
        line("a tab before the version", 400, b"GET /name\tHTTP/1.1"),
        line("a vertical tab before the target", 400, b"GET \x0b/name HTTP/1.1"),
        line("four words", 505, b"GET /name and HTTP/1.1"),
        line("two versions", 400, b"GET /name HTTP/1.1 HTTP/1.1"),
        line("version 0.9", 505, b"GET /name HTTP/0.9"),
        line("version 1.2", 505, b"GET /name HTTP/1.2"),
        line("version 2.0", 505, b"GET /name HTTP/2.0"),
        line("version 1.10", 400, b"GET /name HTTP/1.10"),
        line("version 1", 505, b"GET /name HTTP/1"),
        line("version 2", 505, b"GET /name HTTP/2"),
        line("version 01.1", 505, b"GET /name HTTP/01.1"),
        line("version 1.1 with a sign", 505, b"GET /name HTTP/+1.1"),
        line("a version with a comma", 505, b"GET /name HTTP/1,1"),
        line("a version in lower case", 505, b"GET /name http/1.1"),
        line("a version of another protocol", 505, b"GET /name RTSP/1.0"),
        line("a version with a space", 505, b"GET /name HTTP /1.1"),
        line("a method with a bracket", 400, b"GE(T /name HTTP/1.1"),
        line("a method with a colon", 400, b"GET: /name HTTP/1.1"),
        line("a method with a slash", 400, b"GE/T /name HTTP/1.1"),
        line("a method that is not ASCII", 400, b"G\xc3\x89T /name HTTP/1.1"),
        line("a method with a NUL", 400, b"GET\0 /name HTTP/1.1"),
        line("CONNECT", 405, b"CONNECT a:443 HTTP/1.1"),
        line("CONNECT to a path", 405, b"CONNECT /name HTTP/1.1"),
        case("TRACE", Must::Served(1), b"TRACE /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("a method of somebody's own", Must::Served(1), b"get!of-mine /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("two empty lines before a request", Must::Served(1), b"\r\n\r\nGET /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("version 1.0", Must::ServedLast, b"GET /name HTTP/1.0\r\nHost: a\r\n\r\n"),
        case("version 1.0 that goes on", Must::Served(1), b"GET /name HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"),
    ]
}

pub fn targets() -> Vec<Case> {
    let long = [b"/".as_slice(), &b"x".repeat(70_000)].concat();
    let target = |name, status, target: &[u8]| line(name, status, &[b"GET ", target, b" HTTP/1.1"].concat());
    vec![
        target("an asterisk in a GET", 400, b"*"),
        target("a target of a host and a port", 400, b"a:80"),
        target("a path without its slash", 400, b"name"),
        target("a target of another scheme", 400, b"ftp://a/name"),
        target("an address without a host", 400, b"http:///name"),
        target("an address of a port alone", 400, b"http://:80/name"),
        target("an address with a user", 400, b"http://a@b/name"),
        target("an address with a backslash in its host", 400, b"http://a\\b/name"),
        target("an address with two ports", 400, b"http://a:80:81/name"),
        target("a fragment", 400, b"/name#top"),
        target("a target that is not ASCII", 400, b"/n\xc3\xa4me"),
        target("a target that is not UTF-8", 400, b"/n\xff"),
        target("a target with a NUL", 400, b"/name\0"),
        target("a target with a control character", 400, b"/na\x01me"),
        target("a target with DEL", 400, b"/na\x7fme"),
        target("a target with a carriage return", 400, b"/na\rme"),
        target("a target that is too long", 414, &long),
        line("OPTIONS of an asterisk and more", 400, b"OPTIONS *a HTTP/1.1"),
        case("OPTIONS of an asterisk", Must::Served(1), b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("an address as the target", Must::Served(1), b"GET http://a/name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("another address than the Host", Must::Served(1), b"GET http://b/name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("an address without a path", Must::Served(1), b"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("two slashes", Must::Served(1), b"GET //b/name HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("marks that need not be encoded", Must::Served(1), b"GET /~a!$&'()*+,;=:@-._%20?/?\"<>[]^`{|}\\ HTTP/1.1\r\nHost: a\r\n\r\n"),
        case("a target of 60 kB", Must::Served(1), [b"GET ", &long[..60_000], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()),
    ]
}

pub fn endings() -> Vec<Case> {
    vec![
        refused("line feeds alone", 400, b"GET /name HTTP/1.1\nHost: a\n\n"),
        refused("a line feed alone after the first line", 400, b"GET /name HTTP/1.1\nHost: a\r\n\r\n"),
        refused("a line feed alone after a field", 400, b"GET /name HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        refused("a line feed alone at the end", 400, b"GET /name HTTP/1.1\r\nHost: a\r\n\n"),
        refused("a line feed alone before the end", 400, b"GET /name HTTP/1.1\r\nHost: a\n\r\n"),
        refused("a line feed before the request", 400, b"\nGET /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("a carriage return before the request", 400, b"\rGET /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("a carriage return alone after the first line", 400, b"GET /name HTTP/1.1\rHost: a\r\n\r\n"),
        refused("a carriage return alone after a field", 400, b"GET /name HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        refused("a carriage return too many after a field", 400, b"GET /name HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        refused("a carriage return too many at the end", 400, b"GET /name HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
        refused("a carriage return in a value", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
        refused("a carriage return in a name", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"),
        refused("a line feed in a name", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX\nY: b\r\n\r\n"),
        refused("a line feed before the colon", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX\n: b\r\n\r\n"),
        refused("a line that goes on after a space", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        refused("a line that goes on after a tab", 400, b"GET /name HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
        refused("a Host on the next line", 400, b"GET /name HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
        refused("a space before the first field", 400, b"GET /name HTTP/1.1\r\n Host: a\r\n\r\n"),
        refused("a tab before the first field", 400, b"GET /name HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n"),
        refused("a line of a space before the fields", 400, b"GET /name HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
        refused("four empty lines", 400, b"\r\n\r\n\r\n\r\nGET /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("100 kB of empty lines", 400, b"\r\n".repeat(50_000)),
        closed("a head without its end", b"GET /name HTTP/1.1\r\nHost: a\r\n"),
        closed("a head that ends in its first line", b"GET /na"),
        closed("a head that ends in a line's end", b"GET /name HTTP/1.1\r\nHost: a\r\n\r"),
    ]
}

pub fn other_protocols() -> Vec<Case> {
    let noise: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let without_lines: Vec<u8> = noise.iter().copied().filter(|byte| *byte != b'\n').collect();
    // A record of a handshake, a ClientHello of TLS 1.2 with its random part and three suites; its list of groups has the number 10.
    let hello = [
        b"\x16\x03\x01\x00\x43\x01\x00\x00\x3f\x03\x03".as_slice(),
        &[7; 32],
        b"\0\0\x06\x13\x01\x13\x02\xc0\x2f\x01\0\0\x10\0\x0a\0\x04\0\x02\0\x1d\0\x0d\0\x04\0\x02\x04\x03",
    ]
    .concat();
    vec![
        closed("nothing", b""),
        closed("an empty line", b"\r\n"),
        closed("two empty lines", b"\r\n\r\n"),
        closed("a request of HTTP/0.9", b"GET /name\r\n"),
        refused("a request of HTTP/0.9 and an empty line", 400, b"GET /name\r\n\r\n"),
        refused("TLS", 400, hello),
        closed("the greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        refused("SMTP", 400, b"EHLO a\r\n\r\n"),
        closed("Redis", b"*1\r\n$4\r\nPING\r\n"),
        refused("JSON", 400, b"{\"method\": \"name\"}\n"),
        refused(
            "the PROXY protocol, which nobody has announced",
            505,
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        refused(
            "version 2 of it",
            400,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        refused("an answer", 400, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        refused("noise", 400, noise),
        refused("noise without a line", 414, without_lines),
        refused("100 kB of NUL", 414, [0; 100_000]),
        refused("the preface of HTTP/2 behind an empty line", 505, b"\r\nGET / HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        case(
            "the preface of HTTP/2 behind a request",
            Must::ServedThenRefused(1, 505),
            b"GET /name HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
    ]
}
