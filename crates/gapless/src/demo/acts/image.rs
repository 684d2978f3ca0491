//! Act 1: a real image, by mmdebstrap, Packer and Puppet.

use crate::demo::build::PROVISION;
use crate::demo::script::Demo;
use gapless_engine::error::Error;

/// What Puppet has to bring: the base image has no web server.
const BROUGHT_BY_PUPPET: &str = "Package[apache2]";

/// How many of Puppet's changes are named on the screen.
const NAMED: usize = 4;

/// Starts proxy and server, and builds the project's first commit.
///
/// # Errors
/// When a process does not start or the build fails.
pub async fn build_the_first_image(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(1, "a machine image: mmdebstrap, Packer, Puppet");
    demo.stage.start_proxy().await?;
    // The fourth release's second route is the one that gives it the traffic: act 6 kills the server right after the proxy applied it.
    demo.stage.start_server(Some(super::crash::HOLD)).await?;
    let artifact = demo.build("HEAD").await?;
    for phase in demo.built.phases.clone() {
        let digest = phase.layer.as_deref().map_or("", short);
        demo.screen.note(&format!("{:<12} {} {digest}", phase.name, if phase.cached { "from the cache" } else { "built" }));
    }
    let first = demo.built.puppet.get(&1).cloned().unwrap_or_default();
    let brought = first.iter().any(|resource| resource == BROUGHT_BY_PUPPET);
    demo.prove("Puppet made the machine", brought, format!("its first run changed {}", some_of(&first)));
    let second = demo.built.puppet.get(&2).cloned();
    let empty = second.as_ref().is_some_and(Vec::is_empty);
    let evidence = second.map_or_else(|| "there was none".to_owned(), |changed| format!("it changed {}", some_of(&changed)));
    demo.prove("Puppet's second run has nothing to do", empty, evidence);
    let packer = demo.built.phase(PROVISION).is_some_and(|phase| !phase.cached);
    demo.prove("Packer ran", packer, format!("{} lines of output", demo.built.output.get(PROVISION).copied().unwrap_or(0)));
    demo.prove(
        "the first artifact has number 1",
        artifact.version == 1,
        format!("{} version {}, {}", artifact.name, artifact.version, short(&artifact.image)),
    );
    Ok(())
}

/// Enough of a digest for people.
pub fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn some_of(resources: &[String]) -> String {
    if resources.is_empty() {
        return "nothing".to_owned();
    }
    // Packages say most about a machine, so they come first.
    let (packages, others): (Vec<&str>, Vec<&str>) = resources.iter().map(String::as_str).partition(|name| name.starts_with("Package["));
    let named = packages.into_iter().chain(others).take(NAMED).collect::<Vec<_>>().join(", ");
    match resources.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (1..=8).map(|number| format!("File[{number}]")).collect();
        assert_eq!(some_of(&names), "File[1], File[2], File[3], File[4] and 4 more");
        let made = ["File[/etc/a]".to_owned(), "Package[apache2]".to_owned()];
        assert_eq!(some_of(&made), "Package[apache2], File[/etc/a]");
        assert_eq!(some_of(&[]), "nothing");
        assert_eq!((short("sha256:0123456789abcdef0"), short("x")), ("sha256:0123456789ab", "x"));
    }
}
