//! Upgraded connections (WebSocket): bytes in both directions until both sides have ended, or the drain deadline has come.

use crate::buffer::{Buffers, Inlet};
use crate::stream::Stream;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::Poll;

/// One end of a tunnel: a connection, and what has been read from it already.
pub(crate) struct Mouth<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) inlet: &'a mut Inlet,
}

/// Carries bytes both ways until both have ended, or one is broken.
pub(crate) async fn carry(one: Mouth<'_>, other: Mouth<'_>, buffers: &Buffers) {
    one.stream.read_by(None);
    other.stream.read_by(None);
    one.stream.write_by(None);
    other.stream.write_by(None);
    let there = pin!(carry_one_way(one.stream, one.inlet, other.stream, buffers));
    let back = pin!(carry_one_way(other.stream, other.inlet, one.stream, buffers));
    let mut ways: [(Pin<&mut dyn Future<Output = bool>>, bool); 2] = [(there, false), (back, false)];
    poll_fn(|cx| {
        // One that always finds something to do must not use up the time of the other.
        ways.reverse();
        for (way, is_over) in &mut ways {
            if !*is_over && let Poll::Ready(in_order) = way.as_mut().poll(cx) {
                if !in_order {
                    return Poll::Ready(());
                }
                *is_over = true;
            }
        }
        if ways.iter().all(|(_, is_over)| *is_over) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Until the end, which is passed on; false when either side is broken.
async fn carry_one_way(from: &Stream, inlet: &mut Inlet, to: &Stream, buffers: &Buffers) -> bool {
    loop {
        while !inlet.data().is_empty() {
            if to.write(&mut [IoSlice::new(inlet.data())]).await.is_err() {
                return false;
            }
            inlet.consume(inlet.data().len());
        }
        inlet.rest(buffers);
        match inlet.fill(from, buffers).await {
            Ok(0) => {
                to.close_writing();
                return true;
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
