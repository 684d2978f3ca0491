//! Upgraded connections (WebSocket): bytes in both directions until one side ends, or the drain deadline does.

use crate::account::End;
use crate::body::{AnswerBody, Ending};
use crate::core::Counted;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::http::response::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

/// Answers 101 and lets the bytes pass. The request stays in flight until the tunnel ends.
pub(crate) fn begin(
    mut head: Parts,
    protocol: Option<HeaderValue>,
    node_side: OnUpgrade,
    client_side: OnUpgrade,
    ending: Ending,
) -> Response<AnswerBody> {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
    }
    // The client's connection leaves hyper's hands now and would not be counted by anybody else; before the task has run for the first time, too.
    let counted = Counted::new(&ending.core.shared);
    spawn_local(async move {
        let _counted = counted;
        carry(node_side, client_side, ending).await;
    });
    Response::from_parts(head, AnswerBody::Own(Full::new(Bytes::new())))
}

async fn carry(node_side: OnUpgrade, client_side: OnUpgrade, mut ending: Ending) {
    let both = async {
        let (Ok(node), Ok(client)) = tokio::join!(node_side, client_side) else { return false };
        let (mut node, mut client) = (TokioIo::new(node), TokioIo::new(client));
        // How a tunnel ends is its two ends' affair, unless it was cut.
        let _ = tokio::io::copy_bidirectional(&mut node, &mut client).await;
        true
    };
    let was_carried = tokio::select! {
        was_carried = both => was_carried,
        // A client that keeps its half open would otherwise hold the node.
        () = ending.exchange.cut() => false,
    };
    if was_carried && !ending.exchange.was_cut() {
        // A stream is no small GET, however little it carried.
        ending.account.close(End::Whole(u64::MAX));
    }
    // Else the account is dropped open: it was cut, or the client went away.
}
