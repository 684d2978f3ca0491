//! Where the server is, and which service is meant.

use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::{SERVER_SOCKET, path};
use gapless_wire::client::UnixClient;
use gapless_wire::service::ServiceStatus;
use std::path::PathBuf;

/// Where the server is
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The server's state folder
    #[arg(long, default_value = "/var/lib/gapless", value_name = "DIR")]
    pub state: PathBuf,
    /// The server's socket [default: server.sock in the state folder]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl Connection {
    /// A client of the server.
    pub fn client(&self) -> UnixClient {
        UnixClient::new(self.socket.clone().unwrap_or_else(|| self.state.join(SERVER_SOCKET)))
    }
}

/// The full name of the service that is meant: as given, or the only one there is.
pub async fn service(client: &UnixClient, given: Option<&str>) -> Result<String, Trouble> {
    if let Some(full) = given.filter(|name| name.contains('/')) {
        return Ok(full.to_string());
    }
    let services: Vec<ServiceStatus> = client.get(path::SERVICES).await?;
    let names: Vec<&str> = services.iter().map(|status| status.service.as_str()).collect();
    match given {
        Some(short) => {
            let fits: Vec<&&str> = names.iter().filter(|name| name.split('/').nth(1) == Some(short)).collect();
            match fits.as_slice() {
                [only] => Ok((**only).to_string()),
                _ => Err(Trouble::usage(format!("which service is `{short}`?"), known(&names))),
            }
        }
        None => match names.as_slice() {
            [only] => Ok((*only).to_string()),
            [] => Err(Trouble::new("nothing is deployed yet", "in a project's folder: `gapless deploy`")),
            _ => Err(Trouble::usage("which service?", known(&names))),
        },
    }
}

fn known(names: &[&str]) -> String {
    if names.is_empty() { "nothing is deployed yet: `gapless deploy`".to_string() } else { format!("name one of: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_name_is_taken_as_it_is_and_a_short_one_is_asked_for() {
        let nobody = UnixClient::new("/nowhere/server.sock");
        assert_eq!(service(&nobody, Some("hello/web")).await, Ok("hello/web".to_string()));
        assert!(service(&nobody, Some("web")).await.is_err(), "only the server knows whose");
    }
}
