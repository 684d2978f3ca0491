//! Apache with mod_proxy_balancer.

use super::{Site, tool};
use crate::bench::process::Program;
use crate::bench::template::Values;
use rustix::process::Signal;

/// As Debian calls it.
pub const PROGRAM: &str = "apache2";

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

pub fn start(site: &Site) -> Result<Program, String> {
    let configuration = site.write("apache.conf", &installed(site.values()))?;
    let mut command = tool(PROGRAM);
    command.arg("-DFOREGROUND").arg("-f").arg(configuration);
    Program::start("apache", &mut command, &site.log(), Signal::TERM)
}

/// The user and the modules of Debian's package.
pub fn installed(values: Values) -> Values {
    values.with("modules", MODULES).with("user", "www-data").with("group", "www-data")
}
