//! Effects, on their way into the world.

use crate::checkpoint::EffectContext;
use crate::declaration::ServiceDeclaration;
use crate::error::{Error, ErrorKind};
use crate::platform::{Declarations, Platform};
use gapless_core::effect::Effect;
use gapless_core::event::Failure;
use gapless_core::release::ReleaseNumber;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The releases whose declarations an effect needs.
pub(crate) fn releases_of(effect: &Effect) -> BTreeSet<ReleaseNumber> {
    match effect {
        Effect::EnsureGroup { group, .. } => BTreeSet::from([group.release]),
        Effect::Route(route) => route.members.keys().map(|node| node.group.release).collect(),
        Effect::Drain { .. } | Effect::DestroyNodes { .. } | Effect::Notify(_) => BTreeSet::new(),
    }
}

/// Carries an effect out on the platform.
pub(crate) async fn carry_out(platform: &dyn Platform, context: &EffectContext, declarations: &Declarations) -> Result<(), Error> {
    match &context.effect {
        Effect::EnsureGroup { group, size } => platform.ensure_group(declaration_of(group.release, declarations)?, *group, *size).await,
        Effect::Route(route) => platform.route(&context.service, route, declarations).await,
        Effect::Drain { nodes, deadline } => platform.drain(&context.service, nodes, *deadline).await,
        Effect::DestroyNodes { nodes } => platform.destroy_nodes(&context.service, nodes).await,
        Effect::Notify(_) => Ok(()),
    }
}

fn declaration_of(release: ReleaseNumber, declarations: &Declarations) -> Result<Arc<ServiceDeclaration>, Error> {
    declarations
        .get(&release)
        .cloned()
        .ok_or_else(|| Error::new(format!("the declaration of {release} is not known")).kind(ErrorKind::NotFound))
}

/// What the core is told of an error. The reason is all that is kept of it, so it says too what the person can do.
pub(crate) fn failure(error: &Error) -> Failure {
    let is_final = matches!(error.error_kind(), ErrorKind::Corrupt | ErrorKind::Invalid);
    let reason = error.hint_text().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"));
    Failure { reason, is_final }
}
