//! The one program in the tests' image: a small server, and probes of what a machine may do. Compiled by the tests on its own, statically, without any crate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve") => serve(&arguments[2]),
        Some("exit") => {
            println!("{}", arguments[3]);
            std::process::exit(arguments[2].parse().unwrap());
        }
        Some("probe") => arguments[2..].iter().for_each(|probe| println!("{probe} -> {}", outcome(probe))),
        other => panic!("unknown: {other:?}"),
    }
}

fn serve(port: &str) {
    let listener = TcpListener::bind(("0.0.0.0", port.parse::<u16>().unwrap())).unwrap();
    println!("serving");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) {
    let mut head = [0; 4096];
    let count = stream.read(&mut head).unwrap_or(0);
    if head[..count].starts_with(b"GET /hold") {
        std::thread::sleep(Duration::from_secs(120));
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
}

fn outcome(probe: &str) -> String {
    let (verb, object) = probe.split_once(':').unwrap_or((probe, ""));
    let result = match verb {
        "write" => std::fs::write(object, "x").map(|()| "done".to_string()),
        "read" => std::fs::read_to_string(object).map(|text| text.trim().to_string()),
        "list" => std::fs::read_dir(object).map(names),
        "connect" => {
            TcpStream::connect_timeout(&object.parse::<SocketAddr>().unwrap(), Duration::from_secs(1)).map(|_| "reached".to_string())
        }
        "raw" => raw(),
        "take" => Ok(take(object.parse().unwrap())),
        "stay" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        other => panic!("unknown probe: {other}"),
    };
    result.unwrap_or_else(|error| format!("refused ({:?})", error.kind()))
}

fn names(folder: std::fs::ReadDir) -> String {
    let mut names: Vec<String> = folder.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names.join(" ")
}

fn take(bytes: usize) -> String {
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    format!("took {}", memory.iter().map(|byte| usize::from(*byte)).sum::<usize>())
}

/// Opens a socket for frames as they are, with which a program can say anything in anybody's name (packet(7)).
fn raw() -> std::io::Result<String> {
    const AF_PACKET: i32 = 17;
    const SOCK_RAW: i32 = 3;
    const ETH_P_ARP: u16 = 0x0806;
    unsafe extern "C" {
        fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    }
    // SAFETY: a system call without pointers.
    let socket = unsafe { socket(AF_PACKET, SOCK_RAW, i32::from(ETH_P_ARP.to_be())) };
    if socket < 0 { Err(std::io::Error::last_os_error()) } else { Ok("done".to_string()) }
}
