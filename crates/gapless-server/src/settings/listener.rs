//! `listener` blocks: where clients come, and what is spoken there.

use super::value::{address, service_name};
use crate::hcl::{Complaint, Section, list, one_of, span_of, text, whole};
use gapless_wire::settings::{Listener, Speaks};
use hcl_edit::expr::Expression;
use std::net::{IpAddr, SocketAddr};

/// The most listeners: each takes a socket for every thread of the proxy.
const LISTENERS_LIMIT: usize = 100;

#[derive(Clone, Copy)]
enum Word {
    Http,
    Https,
}

const WORDS: &[(&str, Word)] = &[("http", Word::Http), ("https", Word::Https)];

/// What says what is spoken: one of them, or none for plain HTTP.
const CHOICES: [&str; 3] = ["speaks", "redirect_to_https", "tcp"];

/// Every listener in the order of the file. One without an address is left out.
pub(super) fn read(top: &Section<'_>) -> Vec<Listener> {
    let mut found: Vec<Listener> = Vec::new();
    for block in top.blocks("listener") {
        let address = listener_address(top, block);
        let name = address.map_or("`listener`".to_string(), |address| format!("listener \"{address}\""));
        let section = Section::of_block(top.source(), block, name);
        let (speaks, balancers) = (speaks(&section), section.or("balancers", Vec::new(), list(balancer)));
        section.close();
        let Some(address) = address else { continue };
        if found.iter().any(|other| other.address == address) {
            top.fault(span_of(&block.labels[0]), format!("a second listener \"{address}\""), "each address once");
        }
        found.push(Listener { address, speaks, balancers });
    }
    if found.len() > LISTENERS_LIMIT {
        top.fault(0..0, format!("{} listeners; at most {LISTENERS_LIMIT} may be in one file", found.len()), "run a second proxy");
    }
    found
}

fn listener_address(top: &Section<'_>, block: &hcl_edit::structure::Block) -> Option<SocketAddr> {
    let label = top.label(block, "address")?;
    match address(label) {
        Ok(address) => Some(address),
        Err(hint) => {
            top.fault(span_of(&block.labels[0]), format!("\"{label}\" is no address of a listener"), hint);
            None
        }
    }
}

fn speaks(listener: &Section<'_>) -> Speaks {
    let word = listener.optional("speaks", one_of("words", WORDS));
    let redirect = listener.optional("redirect_to_https", whole(1, 65_535));
    let service = listener.optional("tcp", service_name);
    let mut written = CHOICES.into_iter().filter(|choice| listener.has(choice));
    if let (Some(one), Some(other)) = (written.next(), written.next()) {
        listener.fault_at(other, format!("`{one}` and `{other}` exclude each other"), "keep one, or give the other a listener of its own");
    }
    let redirect = redirect.and_then(|port| u16::try_from(port).ok());
    match (word, redirect, service) {
        (_, _, Some(service)) => Speaks::Tcp(service),
        (_, Some(port), None) => Speaks::RedirectToHttps(port),
        (Some(Word::Https), None, None) => Speaks::Https,
        (_, None, None) => Speaks::Http,
    }
}

fn balancer(value: &Expression) -> Result<IpAddr, Complaint> {
    let shown = text(value)?;
    let address = shown.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    address.ok_or_else(|| Complaint::new(format!("is \"{shown}\""), "the IP address that a balancer comes from, such as \"10.0.0.5\""))
}
