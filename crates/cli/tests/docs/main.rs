//! Every command of the README and of the pages in `docs/` is run.
//!
//! A page's shell blocks run from top to bottom in a folder that has what the pages speak of: `photo.jpg`, `photos/`,
//! `weights.pth`, a run of training under `output/train/RUN`. What would take long is made short ([`shorten`]): fewer
//! epochs, smaller images. Published weights come from a server on loopback. Programs other than `cardinal` are not run;
//! the files and recipes that their commands name must exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "which command is running")]

#[path = "../../../models/tests/common/mod.rs"]
mod common;
mod page;
#[allow(dead_code, reason = "the hub's own tests use the rest")]
#[path = "../../src/hub/tests/server.rs"]
mod server;
mod shorten;
mod workplace;

use page::commands;
use std::path::{Path, PathBuf};
use workplace::Workplace;

#[test]
fn every_command_in_the_documentation_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut pages: Vec<PathBuf> = vec![root.join("README.md"), root.join("bench/README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    // One page, while it is being written: CARDINAL_PAGE=serve.md
    if let Ok(only) = std::env::var("CARDINAL_PAGE") {
        pages.retain(|path| path.ends_with(&only));
    }
    let base = Workplace::new(&root);
    let (mut count, mut failures) = (0, Vec::new());
    for path in &pages {
        let commands = commands(&std::fs::read_to_string(path).unwrap());
        if commands.is_empty() {
            continue;
        }
        let mut place = base.page(path);
        for (line, command) in commands {
            count += 1;
            let name = path.strip_prefix(&root).unwrap().display();
            println!("{name}:{line}: {command}");
            if let Err(reason) = place.run(&command) {
                failures.push(format!("{name}:{line}: {command}\n    {reason}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} commands fail:\n{}", failures.len(), failures.join("\n"));
    assert!(count > 0, "no command was found");
}
