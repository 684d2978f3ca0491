//! The one program in the tests' image: a small server, and probes of what a machine may do. Compiled by the tests on its own, statically, without any crate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve") => serve(&arguments[2]),
        Some("exit") => {
            println!("{}", arguments[3]);
            std::process::exit(arguments[2].parse().unwrap());
        }
        Some("work") => work(&arguments[2]),
        Some("task") => task(&arguments[2..]),
        Some("check") => check(&arguments[2..]),
        Some("wordy") => wordy(),
        Some("probe") => arguments[2..].iter().for_each(|probe| println!("{probe} -> {}", outcome(probe))),
        other => panic!("unknown: {other:?}"),
    }
}

/// How often this process was asked to end.
static ASKED: AtomicU32 = AtomicU32::new(0);

extern "C" fn asked(_signal: i32) {
    ASKED.fetch_add(1, Ordering::SeqCst);
}

/// Counts from now on how often it is asked to end, by whatever signal.
fn listen() {
    const SIGHUP: i32 = 1;
    const SIGQUIT: i32 = 3;
    const SIGTERM: i32 = 15;
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    for (number, name) in [(SIGHUP, "HUP"), (SIGQUIT, "QUIT"), (SIGTERM, "TERM")] {
        // SAFETY: the handler only counts.
        unsafe { signal(number, asked) };
        println!("listens to {name}");
    }
}

/// Works until it was asked to end, and may. Writes down each time that it was asked.
fn work(folder: &str) {
    listen();
    let mut written = 0;
    loop {
        while written < ASKED.load(Ordering::SeqCst) {
            add(folder, "asked");
            written += 1;
        }
        if written > 0 && std::path::Path::new(folder).join("let-end").exists() {
            println!("worked");
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A task: `FOLDER STATUS`, or `FOLDER wait` to end well once it may, or `FOLDER oblige` to end well once it is asked to end, or `FOLDER hang`, or `FOLDER MILLISECONDSms`. Writes down that it was begun.
fn task(arguments: &[String]) {
    let (folder, how) = (&arguments[0], arguments[1].as_str());
    if how == "oblige" {
        listen();
    }
    add(folder, "runs");
    println!("begun as {}", std::fs::read_to_string("/etc/hostname").unwrap().trim());
    match how {
        "wait" => {
            while !std::path::Path::new(folder).join("let-end").exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "oblige" => {
            while ASKED.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        _ => match how.strip_suffix("ms") {
            Some(span) => std::thread::sleep(Duration::from_millis(span.parse().unwrap())),
            None => {
                println!("the last words");
                std::process::exit(how.parse().unwrap());
            }
        },
    }
    println!("done");
}

/// A check: passes if a file is there; hangs if another one is, and writes that down.
fn check(arguments: &[String]) {
    while std::path::Path::new(&arguments[1]).exists() {
        std::fs::write(format!("{}s", arguments[1]), "").unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    if !std::path::Path::new(&arguments[0]).exists() {
        println!("there is no {}", arguments[0]);
        std::process::exit(3);
    }
}

/// A check that writes far more than a pipe holds, and then says no.
fn wordy() {
    for line in 0..20_000 {
        println!("line {line}: what a check says before its last words is of no use to anybody");
    }
    println!("the last words");
    std::process::exit(3);
}

/// Adds a line to a file.
fn add(folder: &str, name: &str) {
    let path = std::path::Path::new(folder).join(name);
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(b"once\n").unwrap();
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
