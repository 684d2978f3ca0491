//! A backup of the running installation.

use super::answer::{Answer, json};
use super::{Call, to_its_end};
use crate::problem::Refused;
use gapless_wire::backup::BackupRequest;
use hyper::Response;

pub(super) async fn make(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, wish): (_, BackupRequest) = call.read().await?;
    if !wish.file.is_absolute() {
        return Err(Refused::bad_request(
            format!("{} is no absolute path", wish.file.display()),
            "name the backup's file from the root on: the server makes it, on its own machine",
        ));
    }
    json(&to_its_end(async move { Ok(server.parts.host.back_up(&wish.file).await?) }).await?)
}
