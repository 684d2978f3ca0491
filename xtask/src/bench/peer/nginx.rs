//! nginx, switched by a reload, and the nginx that answers behind all proxies.

use super::{Members, Running, Site, tool};
use crate::bench::place::{Place, free_addresses};
use crate::bench::process::Program;
use crate::bench::template::{self, Values};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// As much as the others' access logs say, written in pieces ("buffer" of ngx_http_log_module).
const LOG_USE: &str = "log_format balanced '$remote_addr [$time_iso8601] \"$request\" $status $body_bytes_sent $request_time $upstream_addr $upstream_status $upstream_response_time';\n    access_log {{folder}}/access.log balanced buffer=64k flush=1s;";

pub fn start(site: &Site) -> Result<Program, String> {
    let configuration = write(site, &site.members)?;
    run("nginx", &configuration, &site.folder)
}

fn write(site: &Site, members: &Members) -> Result<PathBuf, String> {
    let used = if site.logged { LOG_USE.replace("{{folder}}", &site.folder.display().to_string()) } else { "access_log off;".to_string() };
    site.write("nginx.conf", &site.values(members).with("log_use", used))
}

/// A new configuration, a reload, and waiting until the workers of the old one have ended ("Controlling nginx").
pub fn switch(running: &Running, to: &Members) -> Result<(), String> {
    write(&running.site, to)?;
    running.replace_children(Signal::HUP)
}

/// A node that answers from memory.
pub fn backend(root: &Path, place: &Place, name: &str) -> Result<(Program, SocketAddr), String> {
    let folder = place.folder(name)?;
    let files = place.folder("files")?;
    for (file, bytes) in [("64k", 64 << 10), ("10m", 10_000_000)] {
        let path = files.join(file);
        fs::write(&path, vec![b'd'; bytes]).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    let [address] = free_addresses()?;
    let values = Values::default().with("folder", folder.display()).with("files", files.display()).with("address", address);
    let configuration = template::write(root, "backend.conf", &values, &folder)?;
    Ok((run(name, &configuration, &folder)?, address))
}

fn run(name: &str, configuration: &Path, folder: &Path) -> Result<Program, String> {
    let mut command = tool("nginx");
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(configuration);
    Program::start(name, &mut command, &folder.join("output.log"), Signal::TERM)
}
