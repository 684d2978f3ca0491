//! `gapless init`: the beginning of a project, which builds as it is.

use crate::trouble::Trouble;
use clap::Args;
use gapless_core::name::{PART_LIMIT, is_part};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The files of a new project. `@NAME@` stands for the project's name.
const FILES: &[(&str, &str)] = &[
    ("gapless.hcl", include_str!("../../scaffold/gapless.hcl")),
    ("app/index.html", include_str!("../../scaffold/app/index.html")),
    ("app/healthz", include_str!("../../scaffold/app/healthz")),
    ("packer/web.json", include_str!("../../scaffold/packer/web.json")),
    ("puppet/manifests/site.pp", include_str!("../../scaffold/puppet/manifests/site.pp")),
    ("puppet/modules/web/manifests/init.pp", include_str!("../../scaffold/puppet/modules/web/manifests/init.pp")),
    ("puppet/modules/web/files/apache2.conf", include_str!("../../scaffold/puppet/modules/web/files/apache2.conf")),
    ("puppet/modules/web/files/web-foreground", include_str!("../../scaffold/puppet/modules/web/files/web-foreground")),
    ("terraform/main.tf", include_str!("../../scaffold/terraform/main.tf")),
];

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The project's folder; made if it is not there
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// The project's name [default: the folder's]
    #[arg(long)]
    name: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let folder = std::path::absolute(&arguments.folder).map_err(|error| failed(&arguments.folder, &error))?;
    let name = name(&folder, arguments.name.as_deref())?;
    refuse_to_overwrite(&folder)?;
    for (path, text) in FILES {
        write(&folder.join(path), &text.replace("@NAME@", &name))?;
        println!("{path}");
    }
    println!("\nproject {name} is ready. Next:");
    println!("  cd {} && git init -q && git add . && git commit -qm \"Begin\" && gapless deploy", arguments.folder.display());
    Ok(ExitCode::SUCCESS)
}

fn name(folder: &Path, given: Option<&str>) -> Result<String, Trouble> {
    let name = given
        .map(str::to_string)
        .or_else(|| folder.file_name().map(|name| name.to_string_lossy().to_lowercase().replace(['_', '.', ' '], "-")));
    let name = name.unwrap_or_default();
    if is_part(&name) {
        return Ok(name);
    }
    let hint = format!("give it one with `--name`: at most {PART_LIMIT} lower-case letters, digits and dashes, a letter first");
    Err(Trouble::usage(format!("\"{name}\" cannot be the name of a project"), hint))
}

fn refuse_to_overwrite(folder: &Path) -> Result<(), Trouble> {
    let there: Vec<&str> = FILES.iter().map(|(path, _)| *path).filter(|path| folder.join(path).exists()).collect();
    if there.is_empty() {
        return Ok(());
    }
    Err(Trouble::new(
        format!("{} has {} already", folder.display(), there.join(", ")),
        "nothing was written; begin in another folder, or move these away",
    ))
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    }
    fs::write(path, text).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::new(format!("{} cannot be made: {error}", path.display()), "may you write there, and is there room?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_server::project::Project;

    fn begin(folder: &Path) -> Result<ExitCode, Trouble> {
        run(&Arguments { folder: folder.into(), name: None })
    }

    #[test]
    fn what_is_begun_is_read_without_fault() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("My_Shop");
        begin(&folder).expect("begun");
        let text = fs::read_to_string(folder.join("gapless.hcl")).expect("written");
        let project = Project::parse("gapless.hcl", &text).expect("good");
        assert_eq!(project.name, "my-shop");
        let image = &project.images["web"];
        let template = folder.join(&image.packer.as_ref().expect("packer").template);
        let template: serde_json::Value = serde_json::from_str(&fs::read_to_string(template).expect("template")).expect("JSON");
        assert_eq!(template["builders"][0]["type"], "null");
        assert!(folder.join(&image.application.as_ref().expect("application").source).is_dir());
    }

    #[test]
    fn nothing_is_overwritten() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("shop");
        fs::create_dir_all(folder.join("app")).expect("folder");
        fs::write(folder.join("app/index.html"), "mine").expect("written");
        let told = begin(&folder).expect_err("refused").to_string();
        assert!(told.contains("app/index.html already"), "{told}");
        assert_eq!(fs::read_to_string(folder.join("app/index.html")).ok().as_deref(), Some("mine"));
        assert!(!folder.join("gapless.hcl").exists());
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        let parent = tempfile::tempdir().expect("folder");
        assert!(begin(&parent.path().join("1st")).is_err());
    }
}
