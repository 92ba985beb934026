use crate::exit::Usage;
use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cardinal man | man -l -                             read the page of the program
  cardinal man train | man -l -                       of a command
  cardinal man --output ~/.local/share/man/man1       write all pages; then 'man cardinal-train' works";

/// Prints a manual page, or writes all of them to a folder.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The command, in one word or several ('data check') [default: the program itself]
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    path: Vec<String>,
    /// Write a page for every command to this folder
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut program = crate::Args::command();
        program.build();
        if let Some(folder) = &self.output {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            let count = write_all(&program, folder)?;
            writeln!(stdout(), "{count} pages in {}", folder.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut command = &program;
        for word in &self.path {
            command = command.find_subcommand(word).ok_or_else(|| {
                let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
                Usage(format!(
                    "'{}' has no command '{word}'; it has {}",
                    command.get_name(),
                    names.join(", ")
                ))
            })?;
        }
        stdout().write_all(&page(command)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The manual page of one command.
fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    Man::new(command.clone()).title(name).render(&mut text)?;
    Ok(text)
}

/// Writes the pages of `command` and all below it; says how many.
fn write_all(command: &Command, folder: &Path) -> anyhow::Result<usize> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = folder.join(format!("{name}.1"));
    std::fs::write(&file, page(command)?).with_context(|| file.display().to_string())?;
    let mut count = 1;
    // The pages of 'help' would only repeat the others.
    for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
    {
        count += write_all(below, folder)?;
    }
    Ok(count)
}
