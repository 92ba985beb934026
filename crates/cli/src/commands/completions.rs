use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{Write, stdout};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  source <(cardinal completions bash)                                 for this shell
  cardinal completions bash > ~/.local/share/bash-completion/completions/cardinal
  cardinal completions zsh > ~/.zfunc/_cardinal
  cardinal completions fish > ~/.config/fish/completions/cardinal.fish";

/// Prints what completes commands and flags in a shell.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Args::command(), "cardinal", &mut script);
        stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
