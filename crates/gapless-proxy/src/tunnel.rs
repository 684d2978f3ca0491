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
    spawn_local(carry(node_side, client_side, ending));
    Response::from_parts(head, AnswerBody::Own(Full::new(Bytes::new())))
}

async fn carry(node_side: OnUpgrade, client_side: OnUpgrade, mut ending: Ending) {
    // The client's connection has left hyper's hands and would not be counted by anybody else.
    let _counted = Counted::new(&ending.core.shared);
    let (Ok(node), Ok(client)) = tokio::join!(node_side, client_side) else {
        ending.account.close_client_gone();
        return;
    };
    // How a tunnel ends is its two ends' affair, unless it was cut.
    let (mut node, mut client) = (TokioIo::new(node), TokioIo::new(client));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut node, &mut client) => {}
        // A client that keeps its half open would otherwise hold the node.
        () = ending.exchange.cut() => {}
    }
    // A stream is no small GET, however little it carried.
    let end = if ending.exchange.was_cut() { End::Cut } else { End::Whole(u64::MAX) };
    ending.account.close(end);
}
