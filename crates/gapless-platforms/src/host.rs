//! Hosts that services answer. Of two services with one host a proxy would have to choose, so it takes no route of any service as long as there are two.

use gapless_core::name::ServiceName;
use gapless_core::route::Route;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Declarations;
use std::fmt::Display;

/// The host that a service answers with this route. During a move two releases are members: it is that of the newest one that has traffic.
pub(crate) fn of_route<'d>(route: &Route, declarations: &'d Declarations) -> Option<&'d str> {
    let serving = route.members.iter().filter(|(_, weight)| weight.has_traffic()).map(|(node, _)| node.group.release).max();
    let newest = serving.or_else(|| declarations.keys().max().copied())?;
    declarations.get(&newest).map(|declaration| declaration.host.as_str())
}

/// A host is for this service to answer, if no other one does. It is final: trying again does not help.
///
/// # Errors
/// When one of the others does.
pub(crate) fn refuse_taken<'h, N: Display>(
    service: &ServiceName,
    host: &str,
    others: impl IntoIterator<Item = (N, &'h str)>,
) -> Result<(), Error> {
    let Some((other, _)) = others.into_iter().find(|(_, answered)| *answered == host) else { return Ok(()) };
    let error = Error::new(format!("{service} cannot answer the host \"{host}\", which {other} answers")).kind(ErrorKind::Invalid);
    Err(error.hint("give one of the two another host in gapless.hcl, and deploy it"))
}
