//! `service` blocks: how the requests of one service are treated.

use super::value::{DAY, cookie, cookie_name, header, milliseconds, path, seconds};
use crate::hcl::{Complaint, Section, list, number, one_of, place, size, span_of, text, truth, whole};
use gapless_core::name::{PART_LIMIT, ServiceName};
use gapless_wire::settings::{Balance, Maintenance, NodesSpeak, Rate, Sticky, Testers, Timeouts, Treatment};
use hcl_edit::expr::Expression;
use hcl_edit::structure::Block;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// The most services of one file: the admin socket takes no more than some megabytes.
const SERVICES_LIMIT: usize = 1000;

/// The most further places of one service: more are a pattern, which is for the application to know.
const PLACES_LIMIT: usize = 100;

/// Between these sizes the limit of a body may be, in bytes: bounds against slips of the unit.
const BODY_SIZE: (u64, u64) = (1 << 10, 1024 << 30);

/// The highest number of requests, at a time or in a second: no proxy carries more.
const REQUESTS_HIGHEST: u64 = 1_000_000;

/// The shortest time for a part of a request: in less, not even a node beside the proxy has answered.
const TIMEOUT_LOWEST: Duration = Duration::from_millis(10);

/// The longest slow start: longer than this is a canary.
const SLOW_START_HIGHEST: Duration = Duration::from_secs(3600);

/// The most requests in a row that may come to nothing on a node: more are as good as never.
const EJECT_HIGHEST: u64 = 1000;

/// The largest page, in bytes: it is sent whole to everybody who asks.
const PAGE_LIMIT: u64 = 256 << 10;

const NODES_SPEAK: &[(&str, NodesSpeak)] = &[("http1", NodesSpeak::Http1), ("http2", NodesSpeak::Http2)];

const BALANCE: &[(&str, Balance)] = &[("two-choices", Balance::TwoChoices), ("round-robin", Balance::RoundRobin)];

/// Every service by its full name, and no place twice.
pub(super) fn read(top: &Section<'_>, folder: &Path) -> BTreeMap<String, Treatment> {
    let mut found: BTreeMap<String, Treatment> = BTreeMap::new();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for block in top.blocks("service") {
        let name = full_name(top, block);
        let shown = name.as_ref().map_or("`service`".to_string(), |name| format!("service \"{name}\""));
        let section = Section::of_block(top.source(), block, shown);
        let treatment = treatment(&section, folder);
        section.close();
        let Some(name) = name else { continue };
        for place in &treatment.also {
            if let Some(other) = places.insert(place.clone(), name.clone()) {
                let hint = "each place once, and not the `host` that a service declares itself";
                section.fault_at("also", format!("`also` names \"{place}\", which service \"{other}\" answers already"), hint);
            }
        }
        if found.insert(name.clone(), treatment).is_some() {
            top.fault(span_of(&block.labels[0]), format!("a second service \"{name}\""), "put all of it into one");
        }
    }
    if found.len() > SERVICES_LIMIT {
        top.fault(0..0, format!("{} services; at most {SERVICES_LIMIT} may be in one file", found.len()), "run a second proxy");
    }
    found
}

fn full_name(top: &Section<'_>, block: &Block) -> Option<String> {
    let name = top.label(block, "name")?;
    if name.parse::<ServiceName>().is_ok() {
        return Some(name.to_string());
    }
    let hint = format!(
        "the full name as `gapless status` shows it: `PROJECT/SERVICE`, each of at most {PART_LIMIT} lower-case letters, digits and dashes"
    );
    top.fault(span_of(&block.labels[0]), format!("\"{name}\" cannot be the name of a service"), hint);
    None
}

fn treatment(service: &Section<'_>, folder: &Path) -> Treatment {
    let default = Treatment::default();
    let treatment = Treatment {
        also: service.or("also", Vec::new(), also),
        nodes_speak: service.or("nodes_speak", default.nodes_speak, one_of("words", NODES_SPEAK)),
        balance: service.or("balance", default.balance, one_of("ways", BALANCE)),
        sticky: service.block("sticky", sticky),
        testers: service.block("testers", testers),
        body_bytes: service.optional("body_size", size(BODY_SIZE.0, BODY_SIZE.1)),
        requests_in_flight: service.optional("requests_in_flight", whole(1, REQUESTS_HIGHEST)).map(number),
        rate: service.block("rate", rate),
        timeouts: service.block("timeouts", timeouts).unwrap_or_default(),
        maintenance: service.block("maintenance", |maintenance| self::maintenance(maintenance, folder)),
        tells_release: service.or("tells_release", default.tells_release, truth),
        slow_start_ms: service.or("slow_start", default.slow_start_ms, milliseconds(Duration::ZERO, SLOW_START_HIGHEST)),
        eject_after: service.or("eject_after", default.eject_after, eject_after),
    };
    if let (Some(sticky), Some((name, _))) = (&treatment.sticky, treatment.testers.iter().find_map(|testers| testers.cookie.as_ref()))
        && sticky.cookie == *name
    {
        let what = format!("`cookie` is \"{name}\", which is the cookie of `testers`, too");
        service.fault_inside("sticky", "cookie", what, "give each of the two a name of its own");
    }
    treatment
}

fn also(value: &Expression) -> Result<Vec<String>, Complaint> {
    let places = list(place)(value)?;
    if places.len() > PLACES_LIMIT {
        return Err(Complaint::new(
            format!("has {} places", places.len()),
            format!("at most {PLACES_LIMIT}; a path answers all that is below it"),
        ));
    }
    Ok(places)
}

fn sticky(section: &Section<'_>) -> Sticky {
    Sticky { cookie: section.required("cookie", "add the name of the cookie, such as `cookie = \"gapless\"`", cookie_name) }
}

fn testers(section: &Section<'_>) -> Testers {
    let testers = Testers { header: section.optional("header", header), cookie: section.optional("cookie", cookie) };
    if !section.has("header") && !section.has("cookie") {
        let hint = "add `header = { name = \"x-tester\", value = \"yes\" }` or a `cookie` of the same form";
        section.fault_at("header", "`testers` says nobody", hint);
    }
    testers
}

fn rate(section: &Section<'_>) -> Rate {
    let read = || whole(1, REQUESTS_HIGHEST);
    let per_second =
        section.required("per_second", "add how many requests one address may send in a second, such as `per_second = 50`", read());
    let burst = section.or("burst", per_second, read());
    Rate { per_second: number(per_second), burst: number(burst) }
}

fn timeouts(section: &Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let read = || milliseconds(TIMEOUT_LOWEST, DAY);
    Timeouts {
        body_ms: section.or("body", default.body_ms, read()),
        connect_ms: section.or("connect", default.connect_ms, read()),
        answer_ms: section.or("answer", default.answer_ms, read()),
        answer_body_ms: section.or("answer_body", default.answer_body_ms, milliseconds(Duration::ZERO, DAY)),
        unread_ms: section.or("unread", default.unread_ms, read()),
    }
}

fn maintenance(section: &Section<'_>, folder: &Path) -> Maintenance {
    let (page, file) = (section.optional("page", page), section.optional("page_file", page_file(folder)));
    if section.has("page") && section.has("page_file") {
        section.fault_at("page_file", "`page` and `page_file` are two pages, and there is one", "keep one of them");
    }
    Maintenance {
        page: page.or(file).unwrap_or_default(),
        retry_after_s: section.optional("retry_after", seconds(Duration::from_secs(1), DAY)),
    }
}

fn page(value: &Expression) -> Result<String, Complaint> {
    let page = text(value)?;
    let length = page.len() as u64;
    if length > PAGE_LIMIT { Err(Complaint::new(format!("has {length} bytes"), format!("at most {PAGE_LIMIT} bytes"))) } else { Ok(page) }
}

/// The text of a file.
fn page_file(folder: &Path) -> impl Fn(&Expression) -> Result<String, Complaint> {
    move |value| {
        let path = path(folder)(value)?;
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(PAGE_LIMIT + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            Complaint::new(
                format!("is {}, which cannot be read: {error}", path.display()),
                "a file, by its path from the folder of this file on",
            )
        })?;
        if bytes.len() as u64 > PAGE_LIMIT {
            return Err(Complaint::new(
                format!("is {}, which is longer than {PAGE_LIMIT} bytes", path.display()),
                "a page with its styles in it, and without pictures",
            ));
        }
        String::from_utf8(bytes).map_err(|_| Complaint::new(format!("is {}, which is no UTF-8 text", path.display()), "save it as UTF-8"))
    }
}

/// How many in a row; 0: never.
fn eject_after(value: &Expression) -> Result<Option<u32>, Complaint> {
    let times = whole(0, EJECT_HIGHEST)(value).map_err(|complaint| complaint.because("0 leaves it to the checks alone"))?;
    Ok(Some(number(times)).filter(|times| *times > 0))
}
