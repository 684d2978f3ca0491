//! Clients that ask on and on, and say what they saw.

use super::client::{Answer, Client};
use super::node::checksum;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What a run of clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: u64,
    pub failures: Vec<String>,
}

/// Looks at an exchange: (before it, after it).
pub type Judge = Arc<dyn Fn(u64, &Answer) -> Result<(), String> + Send + Sync>;
pub type Mark = Arc<dyn Fn() -> u64 + Send + Sync>;

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    /// Half of the clients keep their connection, half open one for each request; every tenth request is an upload of 20 kB.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        Self::judged(address, clients, Arc::new(|| 0), Arc::new(|_, _| Ok(())))
    }

    pub fn judged(address: SocketAddr, clients: usize, mark: Mark, judge: Judge) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients)
            .map(|number| {
                let (stop, mark, judge) = (stop.clone(), mark.clone(), judge.clone());
                std::thread::spawn(move || run(address, number, &stop, &mark, &judge))
            })
            .collect();
        Self { stop, clients }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for client in self.clients {
            let seen = client.join().expect("a client's thread");
            all.requests += seen.requests;
            all.failures.extend(seen.failures);
        }
        all
    }
}

fn run(address: SocketAddr, number: usize, stop: &AtomicBool, mark: &Mark, judge: &Judge) -> Seen {
    let upload: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
    let expected = format!("20000 {}", checksum(&upload));
    let mut client = Client::new(address);
    let mut seen = Seen::default();
    while !stop.load(Ordering::SeqCst) {
        let marked = mark();
        let is_upload = seen.requests % 10 == 9;
        let answered = if is_upload { client.post("/upload", &upload) } else { client.get("/name") };
        seen.requests += 1;
        let judged = answered.map_err(|error| error.to_string()).and_then(|answer| {
            let text = answer.text();
            let is_right = if is_upload { text.ends_with(&expected) } else { text == answer.node() };
            if answer.status != 200 || !is_right {
                return Err(format!("status {}: {text}", answer.status));
            }
            judge(marked, &answer)
        });
        if let Err(reason) = judged {
            seen.failures.push(reason);
        }
        if number % 2 == 1 {
            client.close();
        }
    }
    seen
}
