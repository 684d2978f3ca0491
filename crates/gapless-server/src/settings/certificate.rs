//! `certificate` blocks and the `acme` block: what listeners with TLS show, and where it is got from.

use super::value::path;
use crate::hcl::{Complaint, Section, is_host, list, text, truth};
use gapless_wire::settings::{Acme, Certificate};
use hcl_edit::expr::Expression;
use std::collections::BTreeSet;
use std::path::Path;

/// The most hosts of an ordered certificate: public authorities take no more.
const HOSTS_LIMIT: usize = 100;

/// Every certificate in the order of the file.
pub(super) fn read(top: &Section<'_>, folder: &Path) -> Vec<Certificate> {
    let mut found: Vec<Certificate> = Vec::new();
    for certificate in top.each("certificate") {
        let chain = certificate.required("chain", "add the PEM file of the certificate, such as `chain = \"shop.pem\"`", path(folder));
        let key = certificate.required("key", "add the PEM file of its private key, such as `key = \"shop.key\"`", path(folder));
        certificate.close();
        if certificate.has("chain") && certificate.is_read("chain") && found.iter().any(|other| other.chain == chain) {
            certificate.fault_at("chain", format!("{} is in a `certificate` before this one", chain.display()), "each file once");
        }
        found.push(Certificate { chain, key });
    }
    found
}

/// The order, if there is one.
pub(super) fn acme(top: &Section<'_>, folder: &Path) -> Option<Acme> {
    top.block("acme", |acme| {
        let directory = acme.required("directory", "add the address of the authority's directory, which its manual names", directory);
        let hosts = acme.required("hosts", "add the hosts of the certificate, such as `hosts = [\"www.example.com\"]`", hosts);
        let agrees_to_terms = acme.or("agrees_to_terms", false, truth);
        if !agrees_to_terms && acme.is_read("agrees_to_terms") {
            let hint = "read the terms of service that the authority's directory names, and write `agrees_to_terms = true`";
            acme.fault_at("agrees_to_terms", "an authority gives certificates only to who agrees to its terms", hint);
        }
        let contact = acme.optional("contact", contact);
        Acme { directory, contact, agrees_to_terms, hosts, authorities: acme.optional("authorities", path(folder)) }
    })
}

fn directory(value: &Expression) -> Result<String, Complaint> {
    let url = text(value)?;
    let parsed = url.parse::<hyper::Uri>().ok();
    let is_https = parsed.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()));
    let hint = "an address that begins with `https://`, such as \"https://acme-v02.api.letsencrypt.org/directory\"";
    if is_https { Ok(url) } else { Err(Complaint::new(format!("is \"{url}\""), hint)) }
}

fn hosts(value: &Expression) -> Result<Vec<String>, Complaint> {
    let hosts = list(text)(value)?;
    // A proof by HTTP is given for each host by itself, so there is none for all hosts below one (RFC 8555, section 7.1.3).
    if let Some(wrong) = hosts.iter().find(|host| !is_host(host) || !host.contains('.') || host.parse::<std::net::IpAddr>().is_ok()) {
        let hint = "host names in lower case, such as \"www.example.com\"; without port, path or `*`";
        return Err(Complaint::new(format!("has \"{wrong}\""), hint));
    }
    let mut seen = BTreeSet::new();
    if let Some(again) = hosts.iter().find(|host| !seen.insert(*host)) {
        return Err(Complaint::new(format!("names \"{again}\" twice"), "each host once"));
    }
    match hosts.len() {
        0 => Err(Complaint::new("is empty", "the hosts that the certificate is for")),
        1..=HOSTS_LIMIT => Ok(hosts),
        many => Err(Complaint::new(format!("has {many} hosts"), format!("at most {HOSTS_LIMIT}: authorities take no more"))),
    }
}

/// An e-mail address, also as the address that mail programs open.
fn contact(value: &Expression) -> Result<String, Complaint> {
    let shown = text(value)?;
    let contact = shown.strip_prefix("mailto:").unwrap_or(&shown);
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"@,:?&%<>".contains(c));
    match contact.split_once('@') {
        Some((whose, at)) if plain(whose) && plain(at) => Ok(contact.to_string()),
        _ => Err(Complaint::new(format!("is \"{shown}\""), "an e-mail address, such as \"operations@example.com\"")),
    }
}
