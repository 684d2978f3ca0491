//! Lengths and transfer codings, and the classics of request smuggling. Whatever is refused hides a request for `/smuggled` behind it.

use super::{Case, Must, case, refused};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// An upload with these lines in its head, and this behind it.
fn upload(lines: &[u8], behind: &[u8]) -> Vec<u8> {
    [b"POST /upload HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n", behind].concat()
}

fn length(name: &'static str, lines: &[u8]) -> Case {
    refused(name, 400, upload(lines, format!("hello{HIDDEN}").as_bytes()))
}

fn encoding(name: &'static str, lines: &[u8]) -> Case {
    refused(name, 400, upload(lines, format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}").as_bytes()))
}

pub fn lengths() -> Vec<Case> {
    vec![
        length("two lengths that are the same", b"Content-Length: 5\r\nContent-Length: 5"),
        length("two lengths that differ", b"Content-Length: 5\r\ncontent-length: 40"),
        length("two lengths, the first of them 0", b"Content-Length: 0\r\nContent-Length: 5"),
        length("a list of lengths", b"Content-Length: 5, 5"),
        length("a list of lengths that differ", b"Content-Length: 5,40"),
        length("a list of one length", b"Content-Length: 5,"),
        length("a length below 0", b"Content-Length: -5"),
        length("a length with a plus", b"Content-Length: +5"),
        length("a length in base 16", b"Content-Length: 0x5"),
        length("a length with a letter", b"Content-Length: 5a"),
        length("a length with a space inside", b"Content-Length: 5 5"),
        length("a length with a tab inside", b"Content-Length: 5\t0"),
        length("a length with a vertical tab", b"Content-Length: \x0b5"),
        length("a length with a point", b"Content-Length: 5.0"),
        length("a length with an exponent", b"Content-Length: 5e0"),
        length("a length with an underscore", b"Content-Length: 5_0"),
        length("a length in quotes", b"Content-Length: \"5\""),
        length("a length with a semicolon", b"Content-Length: 5;a"),
        length("a length in other digits", b"Content-Length: \xd9\xa5"),
        length("a length of 2^64 and 5", b"Content-Length: 18446744073709551621"),
        length("a length of 19 digits", b"Content-Length: 1000000000000000000"),
        length("a length of 20 digits, most of them 0", b"Content-Length: 00000000000000000005"),
        length("a length of 100 digits", &[b"Content-Length: ".as_slice(), &b"9".repeat(100)].concat()),
        length("an empty length", b"Content-Length:"),
        length("a length of a space", b"Content-Length: "),
        length("a length in words", b"Content-Length: five"),
        length("a length with a space before its colon", b"Content-Length : 5"),
        length("a length on the next line", b"Content-Length:\r\n 5"),
        refused("a length below 0 in a GET", 400, format!("GET /name HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{HIDDEN}")),
        refused("two lengths in HTTP/1.0", 400, b"POST /upload HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello"),
        case("a length with zeros before it", Must::Served(1), upload(b"Content-Length: 005", b"hello")),
        case("a length with spaces around it", Must::Served(1), upload(b"Content-Length: \t 5 \t ", b"hello")),
        case("a field that looks like a length", Must::Served(1), upload(b"Content_Length: 40\r\nContent-Length: 5", b"hello")),
        case("a length that Connection names", Must::Served(1), upload(b"Connection: Content-Length\r\nContent-Length: 5", b"hello")),
    ]
}

pub fn encodings() -> Vec<Case> {
    vec![
        encoding("a length and chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        encoding("chunks and a length", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
        encoding("a length of 0 and chunks", b"Content-Length: 0\r\nTransfer-Encoding: chunked"),
        encoding("a length and an encoding that is none", b"Content-Length: 5\r\nTransfer-Encoding: x"),
        encoding("gzip", b"Transfer-Encoding: gzip"),
        encoding("chunks in chunks", b"Transfer-Encoding: chunked, chunked"),
        encoding("gzip in chunks", b"Transfer-Encoding: gzip, chunked"),
        encoding("chunks in gzip", b"Transfer-Encoding: chunked, gzip"),
        encoding("identity", b"Transfer-Encoding: identity"),
        encoding("identity in chunks", b"Transfer-Encoding: identity, chunked"),
        encoding("chunks in identity", b"Transfer-Encoding: chunked, identity"),
        encoding("a coding that ends in chunked", b"Transfer-Encoding: xchunked"),
        encoding("a coding that begins with chunked", b"Transfer-Encoding: chunkedx"),
        encoding("a coding in quotes", b"Transfer-Encoding: \"chunked\""),
        encoding("a coding in single quotes", b"Transfer-Encoding: 'chunked'"),
        encoding("a coding with a parameter", b"Transfer-Encoding: chunked;q=1"),
        encoding("a coding and a comma", b"Transfer-Encoding: chunked,"),
        encoding("a comma and a coding", b"Transfer-Encoding: ,chunked"),
        encoding("two words", b"Transfer-Encoding: x chunked"),
        encoding("an empty coding", b"Transfer-Encoding:"),
        encoding("a vertical tab before the coding", b"Transfer-Encoding: \x0bchunked"),
        encoding("a vertical tab behind the coding", b"Transfer-Encoding: chunked\x0b"),
        encoding("a form feed behind the coding", b"Transfer-Encoding: chunked\x0c"),
        encoding("a NUL behind the coding", b"Transfer-Encoding: chunked\0"),
        encoding("a space of another kind before the coding", b"Transfer-Encoding: \xc2\xa0chunked"),
        encoding("the coding twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        encoding("the coding and another one", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        encoding("another one and the coding", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        encoding("the coding and an empty one", b"Transfer-Encoding: chunked\r\nTransfer-Encoding:"),
        encoding("the coding on the next line", b"Transfer-Encoding:\r\n chunked"),
        encoding("a coding with a space before its colon", b"Transfer-Encoding : chunked"),
        encoding("a coding with a tab before its colon", b"Transfer-Encoding\t: chunked"),
        encoding("a coding behind a space", b"X: y\r\n Transfer-Encoding: chunked"),
        encoding("a coding behind a line feed", b"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked"),
        encoding("a coding behind a carriage return", b"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked"),
        encoding("a coding behind a NUL", b"Content-Length: 5\r\n\0Transfer-Encoding: chunked"),
        refused("chunks in HTTP/1.0", 400, b"POST /upload HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        case("a coding in capital letters", Must::Served(1), upload(b"TRANSFER-ENCODING: CHUNKED", b"5\r\nhello\r\n0\r\n\r\n")),
        case("a coding between tabs", Must::Served(1), upload(b"Transfer-Encoding:\tchunked\t", b"5\r\nhello\r\n0\r\n\r\n")),
        case("a field that looks like a coding", Must::Served(1), upload(b"Content-Length: 5\r\nTransfer_Encoding: chunked", b"hello")),
        case(
            "a coding that Connection names",
            Must::Served(1),
            upload(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        ),
    ]
}

pub fn classics() -> Vec<Case> {
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let whole = format!("Content-Length: {}", HIDDEN.len());
    vec![
        refused("CL.TE", 400, upload(b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nG")),
        refused("TE.CL", 400, upload(b"Content-Length: 4\r\nTransfer-Encoding: chunked", chunk.as_bytes())),
        refused("TE.TE", 400, upload(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: cow", chunk.as_bytes())),
        refused(
            "CL.TE in a GET",
            400,
            format!("GET /name HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        ),
        refused("a request behind a bad one", 400, format!("GET /name HTTP/1.1\r\n\r\n{HIDDEN}")),
        refused("a request behind CONNECT", 405, format!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n{HIDDEN}")),
        refused("a request behind an expectation", 417, upload(b"Expect: x\r\nContent-Length: 0", HIDDEN.as_bytes())),
        refused("a request behind a space in a target", 400, format!("GET /name HTTP/1.1 {HIDDEN}")),
        refused("a request in a value", 400, format!("GET /name HTTP/1.1\r\nHost: a\r\nX: y\r{HIDDEN}")),
        case(
            "a bad request behind a good one",
            Must::ServedThenRefused(1, 400),
            format!("GET /name HTTP/1.1\r\nHost: a\r\n\r\nGET /name\r\n\r\n{HIDDEN}"),
        ),
        case(
            "CL.TE behind a good one",
            Must::ServedThenRefused(2, 400),
            [upload(b"Content-Length: 5", b"hello").repeat(2), upload(b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nG")]
                .concat(),
        ),
        case(
            "a body that is longer than its length",
            Must::ServedThenRefused(1, 400),
            upload(b"Content-Length: 5", b"hello world\r\n\r\n"),
        ),
        case("a request in a body", Must::Served(1), upload(whole.as_bytes(), HIDDEN.as_bytes())),
        case("a request in a chunk", Must::Served(1), upload(b"Transfer-Encoding: chunked", chunk.as_bytes())),
        case("a request in the body of a GET", Must::Served(1), format!("GET /name HTTP/1.1\r\nHost: a\r\n{whole}\r\n\r\n{HIDDEN}")),
        case("a request in the body of HTTP/1.0", Must::ServedLast, format!("POST /upload HTTP/1.0\r\n{whole}\r\n\r\n{HIDDEN}")),
        case("a request behind a length of 0", Must::Served(2), upload(b"Content-Length: 0", b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")),
        case(
            "a request behind chunks",
            Must::Served(2),
            upload(b"Transfer-Encoding: chunked", b"0\r\n\r\nGET /name HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        case(
            "a request behind a last one",
            Must::ServedLast,
            format!("GET /name HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{HIDDEN}"),
        ),
        case("ten requests at once", Must::Served(10), b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10)),
    ]
}
