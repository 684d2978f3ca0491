//! `gapless prune`: frees the images that no kept release needs.

use crate::client::Connection;
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::prune::{PruneRequest, Pruned};
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only say what would be freed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let wish = PruneRequest { dry_run: arguments.dry_run };
    let pruned: Pruned = arguments.connection.client().send(Method::POST, path::PRUNE, &wish).await?;
    if arguments.json {
        show::json(&pruned)?;
    } else {
        print!("{}", words(&pruned));
    }
    Ok(ExitCode::SUCCESS)
}

fn words(pruned: &Pruned) -> String {
    let Pruned { images, trees, blobs, bytes, dry_run } = pruned;
    if *trees == 0 && *blobs == 0 {
        return "nothing is there that no kept release needs\n".to_string();
    }
    let verb = if *dry_run { "would free" } else { "freed" };
    let mut text = String::new();
    for image in images {
        text += &format!("{verb} the image of {image}\n");
    }
    text + &format!("{verb} {} ({trees} unpacked layers, {blobs} blobs)\n", show::bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_named_and_weighed() {
        let mut pruned = Pruned { images: vec!["hello/web v1".into()], trees: 1, blobs: 3, bytes: 5 << 20, dry_run: true };
        assert_eq!(words(&pruned), "would free the image of hello/web v1\nwould free 5.0 MiB (1 unpacked layers, 3 blobs)\n");
        pruned.dry_run = false;
        assert!(words(&pruned).starts_with("freed the image of hello/web v1\nfreed 5.0 MiB"));
        assert_eq!(words(&Pruned::default()), "nothing is there that no kept release needs\n");
    }
}
