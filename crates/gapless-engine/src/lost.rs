//! Services whose journal could not be read at the start: as soon as it can be, they are kept like the others.

use crate::engine::{Engine, Inner};
use crate::error::{Error, ErrorKind};
use crate::recovery;
use gapless_core::name::ServiceName;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How often it is tried to read a journal that could not be read: about as often as a service looks at the world. A disk tells nobody that it can be read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Reads lost services' journals again, until each is found, or lost for good.
pub(crate) async fn find(inner: Weak<Inner>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); return }
            () = tokio::time::sleep(READ_AGAIN) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let lost = inner.lost_that(may_pass);
        if lost.is_empty() {
            return;
        }
        for service in lost {
            find_one(&inner, &service).await;
        }
    }
}

/// Content that is damaged, or that another version decided differently, stays so: only people can help.
fn may_pass(error: &Error) -> bool {
    matches!(error.error_kind(), ErrorKind::Failed | ErrorKind::NoRoom)
}

async fn find_one(inner: &Arc<Inner>, service: &ServiceName) {
    match recovery::recovered(inner.parts(), service).await {
        Ok(replayed) => {
            inner.parts().clock.go_on_from(replayed.at);
            inner.found(service, replayed);
            tracing::info!(%service, "the journal can be read again");
            Engine::of(inner.clone()).tell_soon(service).await;
        }
        Err(error) => inner.lost(service, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DeclareError;
    use crate::fake::{self, Fake};

    #[tokio::test(start_paused = true)]
    async fn a_service_goes_on_when_its_journal_can_be_read_again() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        engine.stop().await;
        fake.refuse_to_read(3);
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        let refused = engine.declare(fake::declaration(2)).await;
        assert!(matches!(refused, Err(DeclareError::Refused { .. })), "{refused:?}");
        let looks = fake.looks();
        while !engine.lost_services().is_empty() {
            tokio::time::sleep(READ_AGAIN).await;
        }
        while fake.looks() == looks {
            tokio::time::sleep(READ_AGAIN).await;
        }
        engine.declare(fake::declaration(1)).await.expect("it is kept again");
        engine.stop().await;
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(may_pass(&Error::new("the disk cannot be read")));
        assert!(!may_pass(&Error::new("record 3 is damaged").kind(ErrorKind::Corrupt)));
        assert!(!may_pass(&Error::new("the version changed").kind(ErrorKind::Invalid)));
    }
}
