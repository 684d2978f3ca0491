//! Appends to the journal of a state folder until it is killed, and says each sequence once it is durable.

use gapless_core::name::ServiceName;
use gapless_engine::store::Journal;
use gapless_store::contract::every_record;
use gapless_store::{SqliteStore, StateLock};
use std::io::Write;
use std::path::PathBuf;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: gapless-store-writer FOLDER"));
    let store = StateLock::acquire(&folder).and_then(SqliteStore::open).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    });
    let service = ServiceName::new("hello", "web").expect("a name");
    let mut output = std::io::stdout().lock();
    for record in every_record().iter().cycle() {
        let sequence = store.append(&service, record).expect("append");
        writeln!(output, "{}", sequence.0).and_then(|()| output.flush()).expect("say what is durable");
    }
}
