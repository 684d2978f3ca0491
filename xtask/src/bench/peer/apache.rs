//! Apache with mod_proxy_balancer, its members switched over the balancer manager (mod_proxy_balancer, "Enabling Balancer Manager Support").

use super::{DRAIN_PATIENCE, Members, Running, Site, tool};
use crate::bench::http::{self, Request};
use crate::bench::interrupt;
use crate::bench::process::Program;
use crate::bench::template::Values;
use rustix::process::Signal;
use std::net::SocketAddr;

/// As Debian calls it.
pub const PROGRAM: &str = "apache2";

/// As it stands in the configuration.
const NONCE: &str = "bench";

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

pub fn start(site: &Site) -> Result<Program, String> {
    let configuration = site.write("apache.conf", &installed(site.values(&site.all())))?;
    let mut command = tool(PROGRAM);
    command.arg("-DFOREGROUND").arg("-f").arg(configuration);
    Program::start("apache", &mut command, &site.log(), Signal::TERM)
}

/// The user and the modules of Debian's package.
pub fn installed(values: Values) -> Values {
    values.with("modules", MODULES).with("user", "www-data").with("group", "www-data")
}

pub fn rest_standby(running: &Running) -> Result<(), String> {
    set_all(running, &running.site.standby, "w_status_D=1")
}

/// The new members are enabled once their checks pass; the old ones drain until none is busy, and are disabled.
pub fn switch(running: &Running, from: &Members, to: &Members) -> Result<(), String> {
    set_all(running, to, "w_status_D=0&w_status_N=0")?;
    wait(running, to, "checks of the new nodes", |status, _| status.contains("Ok") && !status.contains("HcFl"))?;
    set_all(running, from, "w_status_N=1")?;
    wait(running, from, "the last requests of the old nodes", |_, busy| busy == "0")?;
    set_all(running, from, "w_status_D=1")
}

fn set_all(running: &Running, members: &Members, change: &str) -> Result<(), String> {
    members.iter().try_for_each(|(_, address)| set(running, *address, change))
}

fn set(running: &Running, member: SocketAddr, change: &str) -> Result<(), String> {
    let headers = format!("content-type: application/x-www-form-urlencoded\r\n{}", referer(running));
    let body = format!("b=nodes&nonce={NONCE}&w=http://{member}&{change}");
    let answer =
        http::to_address(running.site.address, Request { method: "POST", path: "/balancer-manager", headers: &headers, body: &body })?;
    if answer.status == 200 { Ok(()) } else { Err(format!("the balancer manager refuses ({}): {}", answer.status, answer.body)) }
}

/// The manager listens to its own pages alone.
fn referer(running: &Running) -> String {
    format!("referer: http://{}/balancer-manager\r\n", running.site.address)
}

/// Until the status and the number of busy connections of all these are good.
fn wait(running: &Running, members: &Members, what: &str, good: impl Fn(&str, &str) -> bool) -> Result<(), String> {
    interrupt::wait_for(what, DRAIN_PATIENCE, || {
        let headers = referer(running);
        let request = Request { method: "GET", path: "/balancer-manager?xml=1", headers: &headers, body: "" };
        let told = http::to_address(running.site.address, request)?.body;
        let is_good = |address: &SocketAddr| {
            let worker = told.split("<httpd:worker>").find(|worker| field(worker, "name") == format!("http://{address}"));
            worker.is_some_and(|worker| good(field(worker, "status"), field(worker, "busy")))
        };
        Ok(members.iter().all(|(_, address)| is_good(address)).then_some(()))
    })
}

fn field<'a>(worker: &'a str, name: &str) -> &'a str {
    let rest = worker.split_once(&format!("<httpd:{name}>")).map_or("", |(_, rest)| rest);
    rest.split_once("</httpd:").map_or("", |(value, _)| value.trim())
}
