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
    let made = async move {
        // Nothing that belongs to it is freed meanwhile.
        let _in_use = server.images_in_use.read().await;
        Ok(server.parts.host.back_up(&wish.file).await?)
    };
    json(&to_its_end(made).await?)
}
