//! How long one core takes for a training image: decode, random resized crop, flip, normalise.
//!
//! `bench/data_throughput.py` runs it beside torchvision (`just bench-data`). Alone:
//!
//! ```text
//! cargo run --release -p cardinal-data --example loader_bench -- FOLDER [ROUNDS]
//! ```
//!
//! It reads all files of the folder once, and for every line on its standard input goes through them once and
//! prints a line with the milliseconds per image; with ROUNDS it does so that many times instead.

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::time::Instant;

use cardinal_data::{Decoder, Picture, Random, TrainTransform};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: loader_bench FOLDER [ROUNDS]")?;
    let rounds: Option<u64> = args.next().map(|rounds| rounds.parse()).transpose()?;
    let mut names = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    names.sort();
    let read = |name: std::path::PathBuf| Ok(Picture::Encoded { bytes: std::fs::read(&name)?, name });
    let pictures = names.into_iter().map(read).collect::<Result<Vec<_>, std::io::Error>>()?;

    let (transform, decoder) = (TrainTransform::default(), Decoder::default());
    let mut out = vec![0.0; transform.output_len()];
    let mut pass = |round: u64| -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        for (index, picture) in pictures.iter().enumerate() {
            transform.apply(picture, &mut Random::new(0, &[round, index as u64]), &decoder, &mut out)?;
        }
        println!("{:.4}", start.elapsed().as_secs_f64() * 1e3 / pictures.len() as f64);
        Ok(())
    };
    match rounds {
        Some(rounds) => (0..rounds).try_for_each(pass),
        None => stdin().lock().lines().zip(0..).try_for_each(|(_, round)| pass(round)),
    }
}
