//! Header fields: names, values, the Host, how many there may be, and what may be expected.

use super::{Case, Must, case, refused, with_fields};

fn field(name: &'static str, lines: &[u8]) -> Case {
    refused(name, 400, with_fields(lines))
}

fn legal(name: &'static str, lines: &[u8]) -> Case {
    case(name, Must::Served(1), with_fields(lines))
}

pub fn names() -> Vec<Case> {
    vec![
        field("a space before the colon", b"X : b"),
        field("a tab before the colon", b"X\t: b"),
        field("a space before a name", b"Y: a\r\n X: b"),
        field("an empty name", b": b"),
        field("no colon", b"X"),
        field("a name of two words", b"X Y: b"),
        field("a name with a bracket", b"X(Y): b"),
        field("a name with a quote", b"\"X\": b"),
        field("a name with an at", b"X@Y: b"),
        field("a name with a slash", b"X/Y: b"),
        field("a name with square brackets", b"X[0]: b"),
        field("a name with a semicolon", b"X;Y: b"),
        field("a name with a NUL", b"X\0: b"),
        field("a name with a control character", b"\x01X: b"),
        field("a name with DEL", b"X\x7f: b"),
        field("a name that is not ASCII", b"X\xc3\xa4: b"),
        legal("a name with an underscore", b"X_Y: b"),
        legal("a name of every mark that names may have", b"!#$%&'*+-.^_`|~09aZ: b"),
        legal("a name that stands there twice", b"X: a\r\nx: b"),
    ]
}

pub fn values() -> Vec<Case> {
    vec![
        field("a value with a NUL", b"X: a\0b"),
        field("a value that is a NUL", b"X: \0"),
        field("a value with a control character", b"X: a\x01b"),
        field("a value with a bell at its end", b"X: a\x07"),
        field("a value with a vertical tab", b"X: a\x0bb"),
        field("a value that begins with a form feed", b"X: \x0ca"),
        field("a value with an escape", b"X: \x1b[31m"),
        field("a value with DEL", b"X: a\x7fb"),
        field("a long value with a NUL at its end", &[b"X: ".as_slice(), &b"a".repeat(1000), b"\0"].concat()),
        legal("a value that is not ASCII", b"X: \xc3\xa4"),
        legal("a value with a tab", b"X: a\tb"),
        legal("an empty value", b"X:"),
        legal("a value of spaces", b"X:   \t  "),
        legal("a value without a space before it", b"X:a"),
        legal("a value with colons, quotes and commas", b"X: a: \"b\\\", c;d="),
    ]
}

pub fn hosts() -> Vec<Case> {
    let host = |name, lines: &[u8]| refused(name, 400, [b"GET /name HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat());
    let good = |name, lines: &[u8]| case(name, Must::Served(1), [b"GET /name HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat());
    let address = |name, lines: &[u8]| refused(name, 400, [b"GET http://a/name HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat());
    vec![
        host("no Host", b"X: a"),
        host("two Hosts that differ", b"Host: a\r\nHost: b"),
        host("two Hosts that are the same", b"Host: a\r\nhost: a"),
        host("an empty Host", b"Host:"),
        host("a Host of spaces", b"Host:   "),
        host("a Host of a port alone", b"Host: :80"),
        host("a Host with a user", b"Host: u@a"),
        host("a Host with a path", b"Host: a/b"),
        host("a Host with a question", b"Host: a?b"),
        host("a Host with a fragment", b"Host: a#b"),
        host("a Host with a space", b"Host: a b"),
        host("a Host with a tab", b"Host: a\tb"),
        host("a Host with a comma", b"Host: a, b"),
        host("a Host with a semicolon", b"Host: a;b"),
        host("a Host with a backslash", b"Host: a\\b"),
        host("a Host with a quote", b"Host: \"a\""),
        host("a Host that is not ASCII", b"Host: \xc3\xa4"),
        host("a Host with two ports", b"Host: a:80:81"),
        host("a Host with a port that is no number", b"Host: a:b"),
        host("a Host with a port below 0", b"Host: a:-1"),
        host("a Host with a bracket that stays open", b"Host: [::1"),
        host("a Host with a bracket too many", b"Host: a]"),
        host("a Host with something behind its bracket", b"Host: [::1]a"),
        host("a Host of an empty bracket", b"Host: []"),
        host("a Host with a scheme", b"Host: http://a"),
        address("an address as the target, and no Host", b"X: a"),
        address("an address as the target, and two Hosts", b"Host: a\r\nHost: a"),
        address("an address as the target, and a Host with a space", b"Host: a b"),
        refused("an empty Host in HTTP/1.0", 400, b"GET /name HTTP/1.0\r\nHost:\r\n\r\n"),
        good("a Host with a port", b"Host: a:8080"),
        good("a Host with a colon and no port", b"Host: a:"),
        good("a Host of version 6", b"Host: [::1]:80"),
        good("a Host of version 6 without a port", b"Host: [2001:db8::1]"),
        good("a Host with a dot at its end", b"Host: A.Example."),
        good("a Host with an underscore", b"hOST:a_b"),
        case("no Host in HTTP/1.0", Must::ServedLast, b"GET /name HTTP/1.0\r\n\r\n"),
    ]
}

pub fn sizes() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: a")).collect::<Vec<_>>().join("\r\n").into_bytes();
    let large = |name, lines: Vec<u8>| refused(name, 431, with_fields(&lines));
    vec![
        large("129 fields", many(128)),
        large("a value of 70 kB", [b"X: ".as_slice(), &b"a".repeat(70_000)].concat()),
        large("a name of 70 kB", [b"X".repeat(70_000).as_slice(), b": a"].concat()),
        large("70 values of 1 kB", (0..70).map(|_| format!("X: {}", "a".repeat(1000))).collect::<Vec<_>>().join("\r\n").into_bytes()),
        large("spaces of 70 kB before a value", [b"X: ".as_slice(), &b" ".repeat(70_000), b"a"].concat()),
        large("a head of 1 MB", [b"X: ".as_slice(), &b"a".repeat(1_000_000)].concat()),
        large("33 members of Connection", [b"Connection: ".as_slice(), &b"a,".repeat(32)].concat()),
        legal("128 fields", &many(127)),
        legal("a value of 60 kB", &[b"X: ".as_slice(), &b"a".repeat(60_000)].concat()),
    ]
}

pub fn expectations() -> Vec<Case> {
    let post = |lines: &str| format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{lines}\r\n\r\nhello").into_bytes();
    vec![
        refused("an expectation that nobody knows", 417, post("Expect: 200-ok")),
        refused("an expectation and another one", 417, post("Expect: 100-continue, 200-ok")),
        refused("an expectation and another one in two fields", 417, post("Expect: 100-continue\r\nExpect: 200-ok")),
        refused("an empty expectation", 417, post("Expect:")),
        case("an expectation", Must::Served(1), post("Expect: 100-Continue")),
        case("an expectation without a body", Must::Served(1), with_fields(b"Expect: 100-continue")),
        case(
            "an upgrade to h2c",
            Must::Served(1),
            with_fields(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
        ),
        case("an upgrade to h2c among others", Must::Served(1), with_fields(b"Connection: Upgrade\r\nUpgrade: websocket, H2C")),
        case("an upgrade that Connection does not name", Must::Served(1), with_fields(b"Upgrade: websocket")),
        case("an upgrade that the node does not make", Must::Served(1), with_fields(b"Connection: Upgrade\r\nUpgrade: websocket")),
        case("a connection that names the Host", Must::Served(1), with_fields(b"Connection: Host")),
        case("a connection that is to end", Must::ServedLast, with_fields(b"Connection: close")),
    ]
}
