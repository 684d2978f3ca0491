//! Bodies in chunks that are none, trailers, and bodies that end too early. What is wrong from its first byte on is refused before a node hears of the request.

use super::{Case, Must, case, refused};

fn chunked(body: &[u8]) -> Vec<u8> {
    [b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat()
}

/// A body that is wrong behind its beginning.
fn broken(name: &'static str, status: u16, body: &[u8]) -> Case {
    case(name, Must::Broken(status), chunked(body))
}

pub fn sizes() -> Vec<Case> {
    let size = |name, body: &[u8]| refused(name, 400, chunked(body));
    vec![
        size("an empty size", b"\r\nhello\r\n0\r\n\r\n"),
        size("a size below 0", b"-5\r\nhello\r\n0\r\n\r\n"),
        size("a size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
        size("a size with its base", b"0x5\r\nhello\r\n0\r\n\r\n"),
        size("a size with a space before it", b" 5\r\nhello\r\n0\r\n\r\n"),
        size("a size with a space behind it", b"5 \r\nhello\r\n0\r\n\r\n"),
        size("a size with a tab behind it", b"5\t\r\nhello\r\n0\r\n\r\n"),
        size("a size with a letter that is no digit", b"g\r\nhello\r\n0\r\n\r\n"),
        size("a size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
        size("a size with a NUL", b"5\0\r\nhello\r\n0\r\n\r\n"),
        size("a size in quotes", b"\"5\"\r\nhello\r\n0\r\n\r\n"),
        size("a size of 2^64 and 5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        size("a size of 16 digits", b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
        size("a size and a line feed alone", b"5\nhello\r\n0\r\n\r\n"),
        size("a size and a carriage return alone", b"5\rhello\r\n0\r\n\r\n"),
        size("a size and two carriage returns", b"5\r\r\nhello\r\n0\r\n\r\n"),
        size("an extension without a size", b";a\r\nhello\r\n0\r\n\r\n"),
        size("an extension with a control character", b"5;a=\x01\r\nhello\r\n0\r\n\r\n"),
        size("an extension with DEL", b"5;a\x7f\r\nhello\r\n0\r\n\r\n"),
        size("an extension that is not ASCII", b"5;\xc3\xa4\r\nhello\r\n0\r\n\r\n"),
        size("an extension with a line feed", b"5;a\nhello\r\n0\r\n\r\n"),
        size("an extension with a carriage return", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        size("an extension with a line feed, and a size behind it", b"5;\n40\r\nhello\r\n0\r\n\r\n"),
        refused("an extension that is too long", 431, chunked(&[b"5;".as_slice(), &b"a".repeat(300), b"\r\nhello\r\n0\r\n\r\n"].concat())),
        size("a body that is no chunk", b"hello"),
        size("a last size of many digits", b"0000000000000000\r\n\r\n"),
    ]
}

pub fn chunks() -> Vec<Case> {
    vec![
        broken("a chunk without its end", 400, b"5\r\nhello0\r\n\r\n"),
        broken("a chunk that is longer than its size", 400, b"5\r\nhello world\r\n0\r\n\r\n"),
        broken("a chunk that is shorter than its size", 400, b"6\r\nhello\r\n0\r\n\r\n"),
        broken("a chunk that ends in a line feed alone", 400, b"5\r\nhello\n0\r\n\r\n"),
        broken("a chunk that ends in a carriage return alone", 400, b"5\r\nhello\r0\r\n\r\n"),
        broken("a chunk and two line ends", 400, b"5\r\nhello\r\n\r\n0\r\n\r\n"),
        broken("a chunk and a space", 400, b"5\r\nhello \r\n0\r\n\r\n"),
        broken("a second size below 0", 400, b"5\r\nhello\r\n-1\r\n\r\n"),
        broken("a second size with its base", 400, b"5\r\nhello\r\n0x0\r\n\r\n"),
        broken("a last size with a space behind it", 400, b"5\r\nhello\r\n0 \r\n\r\n"),
        broken("a last size with a line feed alone", 400, b"5\r\nhello\r\n0\n\n"),
        broken("a request in place of a chunk", 400, b"5\r\nhello\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        broken(
            "a second extension that is too long",
            431,
            &[b"5\r\nhello\r\n1;".as_slice(), &b"a".repeat(300), b"\r\nx\r\n0\r\n\r\n"].concat(),
        ),
    ]
}

pub fn trailers() -> Vec<Case> {
    let large = [b"5\r\nhello\r\n0\r\nX: ".as_slice(), &b"a".repeat(20_000), b"\r\n\r\n"].concat();
    let many = [b"5\r\nhello\r\n0\r\n".as_slice(), &b"X: a\r\n".repeat(129), b"\r\n"].concat();
    vec![
        broken("a trailer without a colon", 400, b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
        broken("a trailer with a space before its colon", 400, b"5\r\nhello\r\n0\r\nX : a\r\n\r\n"),
        broken("a trailer without a name", 400, b"5\r\nhello\r\n0\r\n: a\r\n\r\n"),
        broken("a trailer behind a space", 400, b"5\r\nhello\r\n0\r\n X: a\r\n\r\n"),
        broken("a trailer that goes on on the next line", 400, b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        broken("a trailer that ends in a line feed alone", 400, b"5\r\nhello\r\n0\r\nX: a\n\r\n"),
        broken("trailers that end in a line feed alone", 400, b"5\r\nhello\r\n0\r\nX: a\r\n\n"),
        broken("no trailers and a line feed alone", 400, b"5\r\nhello\r\n0\r\n\n"),
        broken("a trailer with a carriage return", 400, b"5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n"),
        broken("a trailer with a NUL", 400, b"5\r\nhello\r\n0\r\nX: a\0\r\n\r\n"),
        broken("a carriage return before the trailers", 400, b"5\r\nhello\r\n0\r\n\rX: a\r\n\r\n"),
        broken("a request in place of trailers", 400, b"5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        broken("trailers that are too large", 431, &large),
        broken("trailers that are too many", 431, &many),
        refused("a bad trailer behind no chunk at all", 400, chunked(b"0\r\nX : a\r\n\r\n")),
    ]
}

pub fn legal() -> Vec<Case> {
    let served = |name, body: &[u8]| case(name, Must::Served(1), chunked(body));
    vec![
        served("an extension", b"5;a=b\r\nhello\r\n0\r\n\r\n"),
        served("an extension in quotes", b"5;a=\"b; c\"\r\nhello\r\n0;last\r\n\r\n"),
        served("an extension with spaces", b"5; a = b\r\nhello\r\n0\r\n\r\n"),
        served("a size with zeros before it", b"0005\r\nhello\r\n000\r\n\r\n"),
        served("a size in capital letters", b"A\r\n0123456789\r\n0\r\n\r\n"),
        served("no chunk at all", b"0\r\n\r\n"),
        served("five chunks of one byte", b"1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
    ]
}

pub fn ends() -> Vec<Case> {
    let kept = b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    let once = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    vec![
        refused("a body that could be kept, and is not there", 400, kept).ending(),
        refused("a body that could be kept, and ends too early", 400, [kept.as_slice(), b"hello"].concat()).ending(),
        case("a body that ends too early", Must::Broken(400), [once.as_slice(), b"hello"].concat()).ending(),
        case("a body that is not there", Must::Broken(400), once).ending(),
        broken("a size that ends too early", 400, b"5").ending(),
        broken("a chunk that ends too early", 400, b"5\r\nhel").ending(),
        broken("a chunk and no other one", 400, b"5\r\nhello\r\n").ending(),
        broken("chunks without their last line", 400, b"5\r\nhello\r\n0\r\n").ending(),
        broken("chunks that end inside their trailers", 400, b"5\r\nhello\r\n0\r\nX: a\r\n").ending(),
    ]
}
